"""Projectors to a tracker's space: shapes on oblong grids, which frame meets which latent, and which of them can express motion."""
import pytest
import torch

from motionlab.core.errors import MotionLabError
from motionlab.correlation import offsets, unit
from motionlab.papers.sam2videox.gram_flow import lgf_kl, local_gram_flow
from motionlab.papers.sam2videox.projectors import PROJECTORS, in_time, make_projector, teacher_frames


@pytest.mark.parametrize("name, frames, h, w", [("spatial", 9, 6, 8), ("temporal", 9, 3, 4), ("linear", 9, 3, 4), ("interp_last", 9, 3, 4),
                                                ("latent_stride", 3, 3, 4)])
def test_shapes_on_an_oblong_grid_and_the_gradient_of_every_part(name, frames, h, w):
    project = make_projector(name, 48, 16)
    out = project(torch.randn(2, 3, 3, 4, 48))
    assert out.shape == (2, frames, h, w, 16) and len(teacher_frames(name, 3)) == frames
    out.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in project.parameters() if p.requires_grad and p.abs().sum() > 0)


def test_widths_and_parameters_are_the_cards():
    counts = {name: sum(p.numel() for p in make_projector(name, 3072).parameters()) for name in ("spatial", "interp_last")}
    pointwise = 768 * 512 + 512 + 512 * 256 + 256 + 256 * 256 + 256 + 2 * (512 + 256)
    assert counts["spatial"] == 3072 * 3072 + 3072 + pointwise + 768 * 256 * 3 + 256
    assert 2.4e6 < counts["interp_last"] < 2.7e6                                     # 2.56 M in the card, its skip included


def test_a_marked_frame_meets_its_latent():
    x = torch.zeros(1, 4, 1, 1, 1)
    x[:, 2] = 1.0
    assert in_time(x)[0, :, 0, 0, 0].tolist() == [0, 0, 0, 0, 0, 0.25, 0.5, 0.75, 1.0, 0.75, 0.5, 0.25, 0]
    assert teacher_frames("latent_stride", 5) == [0, 4, 8, 12, 16] and teacher_frames("temporal", 5) == list(range(17))
    spatial = make_projector("spatial", 8, 4)
    marked = torch.zeros(1, 3, 2, 2, 8)
    marked[0, 1, 0, 1, 4:6] = 1.0                                                    # third slice: the lower left place of its token
    seen = []
    spatial.project.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    spatial(marked)
    assert seen[0].shape == (1, 9, 4, 4, 2) and seen[0][0, 4].sum(-1).nonzero().tolist() == [[1, 2]]


def test_interpolated_last_motion_inside_a_latent_is_lost():
    """Card 2.3: features moving one cell a frame, four a latent. The true best match is one cell on everywhere, the interpolated one none."""
    wide = unit(torch.randn(30, 60, 256, generator=torch.Generator().manual_seed(0)))
    true = torch.stack([wide[:, 30 - k:60 - k] for k in range(13)])[None]             # 13 frames, each a cell further to the right
    latents = true[:, ::4]
    target, interpolated = local_gram_flow(true), local_gram_flow(in_time(latents))
    middle = (slice(None), slice(None), slice(5, 25), slice(5, 25))
    assert (target[middle].argmax(-1) == offsets().index((0, 1))).all() and (interpolated[middle].argmax(-1) == offsets().index((0, 0))).all()
    lost, still = float(lgf_kl(target, interpolated)), float(lgf_kl(target, local_gram_flow(torch.ones(1, 13, 30, 30, 8))))
    assert 8.0 < lost < 10.0 and 3.3 < still < 3.9                                   # 9.1 and 3.7 nats in the card


def test_bad_input():
    with pytest.raises(MotionLabError, match="latent_stride"):
        make_projector("latent_strid", 48)
    with pytest.raises(MotionLabError, match="4 parts"):
        make_projector("spatial", 50)
    assert set(PROJECTORS) == {"spatial", "temporal", "linear", "interp_last", "latent_stride"}
