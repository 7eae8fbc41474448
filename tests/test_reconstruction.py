"""What a codec keeps: exact pictures lose nothing, known damage costs what it should."""
import numpy as np
import pytest

from motionlab.core.errors import MotionLabError
from motionlab.flow_rgb import WORLD_SIGMA, flow_video
from motionlab.metrics.reconstruction import flow_picture_error, limb_truth, palette_part_error, psnr
from motionlab.world import random_scene, render

CLIP = render(random_scene(12, species_name="dog", camera=False), frames=5)


def test_truth_of_the_limbs_is_the_centroid_of_their_pixels():
    centres, area = limb_truth(CLIP)
    mask = CLIP.limb_masks()["torso"][2]
    y, x = np.nonzero(mask)
    assert area[2, 0] == mask.sum() or (area[2] == mask.sum()).any()
    assert np.nanmin(np.linalg.norm(centres[2] - (x.mean(), y.mean()), axis=-1)) < 1e-9


def test_a_clean_clip_has_small_part_error_and_a_shifted_one_the_shift():
    shifted = np.roll(CLIP.frames, 3, axis=2)
    clean, moved = palette_part_error(CLIP.frames, CLIP), palette_part_error(shifted, CLIP)
    assert clean < 0.4 and moved == pytest.approx(3, abs=0.5)


def test_a_missing_subject_is_infinitely_far():
    assert palette_part_error(np.full_like(CLIP.frames, 255), CLIP) == np.inf


def test_an_exact_flow_picture_keeps_the_flow_and_a_white_one_loses_all():
    picture = flow_video(CLIP.flow, WORLD_SIGMA)
    kept, lost = flow_picture_error(picture, CLIP), flow_picture_error(np.full_like(picture, 255), CLIP)
    assert kept["epe"] < 0.05 and kept["speed"] > 0.2
    assert lost["relative"] == pytest.approx(1, abs=0.15)


def test_psnr_of_a_known_error():
    off = (CLIP.frames.astype(int) + np.where(CLIP.frames > 127, -10, 10)).astype(np.uint8)
    assert psnr(off, CLIP) == pytest.approx(20 * np.log10(25.5)) == pytest.approx(psnr(off, CLIP, subject=True))


def test_frames_of_another_length_are_refused():
    with pytest.raises(MotionLabError, match="do not fit"):
        palette_part_error(CLIP.frames[:3], CLIP)
