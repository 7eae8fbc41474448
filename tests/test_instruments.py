"""What the codec costs, and how instruments answer damage: with a codec that changes nothing and readers that are told the truth."""
import numpy as np
import pytest

from motionlab.experiments.instruments import codec_rows, dose_rows
from motionlab.models.evaluator import CLASSES, LIMBS, labels_of, true_limbs
from motionlab.world import random_scene, render

CLIP = render(random_scene(31, species_name="person", motion="run", camera=False, paths=False), frames=17)


class Nothing:
    """A codec that changes nothing but rounding: latents are the pixels."""

    def encode(self, video):
        return video

    def decode(self, latents):
        return latents


class Oracle:
    """Reads limbs `off` pixels from where they are, and the classes of the undamaged clip."""

    def __init__(self, off=0.0):
        self.off = off

    def read(self, frames, species=None):
        positions, visible = true_limbs(CLIP)
        asked = {name: [CLASSES[name][index]] for name, index in labels_of(CLIP.attributes).items()}
        return asked | {"limbs": [LIMBS["person"]], "positions": positions[None] + np.array([self.off, 0]), "visible": visible[None].astype(float)}


def test_an_exact_codec_costs_nothing_and_errors_are_in_pixels():
    rows = {r["arm"]: r for r in codec_rows({"a": CLIP}, Nothing(), {"0": Oracle(), "1": Oracle(off=1.5)}, noises=(0.3,))}
    assert set(rows) == {"original", "reconstruction", "noise_0.3"}
    plain = rows["reconstruction"]
    assert plain["psnr"] > 60 and plain["part_error_0"] == pytest.approx(0, abs=1e-5) and plain["part_error_1"] == pytest.approx(1.5, abs=1e-4)
    assert plain["flow_relative"] < 0.05 and plain["look_ok_0"] == plain["move_ok_1"] == 1
    assert rows["noise_0.3"]["psnr"] < 20 and rows["noise_0.3"]["part_error_palette"] > plain["part_error_palette"]


def test_damage_is_seen_by_the_instruments_without_a_network():
    damages = {"clean": (0,), "hide": (1,), "frozen": (1,), "shuffled": (1,)}
    rows = {r["arm"]: r for r in dose_rows({"a": CLIP}, Nothing(), {"0": Oracle()}, damages)}
    assert rows["clean_0"]["part_error"] == pytest.approx(0, abs=1e-6) and rows["frozen_1"]["failure_frozen"] > 0.9 > 0.1 > rows["clean_0"]["failure_frozen"]
    assert rows["shuffled_1"]["articulation"] > rows["clean_0"]["articulation"] + 0.3
    assert all(r["part_error_0"] < 1e-4 for r in rows.values())
