"""Linear probes: known answers on features made by hand, the truth of patches, clips kept apart."""
import numpy as np
import pytest
import torch

from motionlab.core.errors import MotionLabError
from motionlab.metrics.probes import PARTS, linear_probe, patch_parts, probe_features, probe_rows, raw_pixels
from motionlab.world import random_scene, render


def test_it_reads_what_lies_open_and_only_that():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 400)
    x = 0.1 * rng.standard_normal((400, 12))
    x[np.arange(400), y] += 5.0
    assert linear_probe(x[:200], y[:200], x[200:], y[200:]).balanced_accuracy == 1.0
    noise = rng.standard_normal((400, 12))
    found = linear_probe(noise[:200], y[:200], noise[200:], y[200:])
    assert abs(found.balanced_accuracy - 0.25) < 0.12 and found.chance == 0.25


def test_a_rare_class_counts_as_much_as_a_common_one():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 7], [390, 10])
    x = rng.standard_normal((400, 3))
    x[:, 0] += 2.0 * (y == 7)
    found = linear_probe(x, y, x, y)
    assert min(found.per_class.values()) > 0.6 and set(found.per_class) == {0, 7}       # not "always 0"
    always = linear_probe(x, y, x[y == 0], y[y == 0])
    assert always.balanced_accuracy == always.per_class[0]                              # only classes that are there


def test_scale_and_offset_of_the_features_do_not_matter():
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((200, 5)), rng.integers(0, 3, 200)
    x[:, 2] += y
    a = linear_probe(x[:100], y[:100], x[100:], y[100:])
    b = linear_probe(*(z for pair in ((1000 * x[:100] - 5, y[:100]), (1000 * x[100:] - 5, y[100:])) for z in pair))
    assert a.per_class == b.per_class


def test_patches_carry_the_limb_of_most_pixels():
    clip = render(random_scene(3, species_name="box", motion="slide"), frames=5)
    parts, masks = patch_parts(clip, [0, 4], patch=4), clip.limb_masks()
    assert parts.shape == (2, 144)
    cell = parts[1].reshape(12, 12)
    subject = clip.object_mask(None)[4].reshape(12, 4, 12, 4).sum((1, 3))
    assert (cell[subject == 0] == 0).all()
    full = masks["lid"][4].reshape(12, 4, 12, 4).sum((1, 3))
    assert (full > 8).any() and {PARTS[p] for p in cell[full > 8]} == {"box/lid"}


def test_networks_side_by_side():
    """Features that hold the true class read perfectly, constant ones at chance, and colour comes from pixels."""
    clips = [render(random_scene(seed, species_name="ball", motion="roll"), frames=5) for seed in range(20)]
    truth = {c.video()[t].tobytes(): patch_parts(c, [t])[0] for c in clips for t in (0, 4)}

    def oracle(frames):
        parts = torch.tensor(np.stack([truth[f.numpy().tobytes()] for f in frames]))
        return torch.nn.functional.one_hot(parts, len(PARTS)).float()

    networks = {"oracle": oracle, "pixels": raw_pixels(), "nothing": lambda v: torch.ones(len(v), 144, 2)}
    found = probe_features(networks, clips, frames=(0, 4))
    assert found["oracle"]["part"].balanced_accuracy == 1.0
    assert found["nothing"]["part"].balanced_accuracy < found["pixels"]["part"].balanced_accuracy < 1.0
    rows = probe_rows(found, [f"clip{k}" for k in range(14, 20)])
    assert len(rows) == 18 and all(r["part_accuracy"] == 1 for r in rows if r["arm"] == "oracle")
    pixels = [r["part_accuracy"] for r in rows if r["arm"] == "pixels"]
    assert 0.2 < np.mean(pixels) < 1 and {r["item"] for r in rows} == {f"clip{k}" for k in range(14, 20)}
    assert found["pixels"]["part"].n[1] == 6 * 2 * 144 and found["pixels"]["colour"].n == (14 * 2, 6 * 2)


def test_bad_input():
    x, y = np.zeros((4, 2)), np.array([0, 1, 0, 1])
    with pytest.raises(MotionLabError, match="one class only"):
        linear_probe(x, np.zeros(4, int), x, y)
    with pytest.raises(MotionLabError, match="wanted \\(n, d\\)"):
        linear_probe(x, y[:3], x, y)
    with pytest.raises(MotionLabError, match="width 2 and 3"):
        linear_probe(x, y, np.zeros((4, 3)), y)
    with pytest.raises(MotionLabError, match="not finite"):
        linear_probe(x * np.nan, y, x, y)
    clip = render(random_scene(0), frames=5)
    with pytest.raises(MotionLabError, match="do not divide into 5x5"):
        patch_parts(clip, [0], patch=5)
    with pytest.raises(MotionLabError, match="Give at least ten"):
        probe_features({"pixels": raw_pixels()}, [clip] * 2, frames=(0,))
