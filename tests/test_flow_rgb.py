"""Flow pictures (VideoJAM Eq. 5): known colours, the way back, and what saturates."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from motionlab.core.errors import MotionLabError
from motionlab.flow_rgb import flow_to_rgb, rgb_to_flow, saturation_speed


def _some_flow(size=(40, 56), share=0.99, seed=0):
    """Random directions and speeds below saturation, (3, 2, h, w), float64."""
    rng = np.random.default_rng(seed)
    angle = rng.uniform(-np.pi, np.pi, (3, *size))
    speed = rng.uniform(0, share, (3, *size)) * saturation_speed(size)
    return np.stack([speed * np.cos(angle), speed * np.sin(angle)], axis=1)


def _constant(u, v, size=(32, 32)):
    return np.broadcast_to(np.array([u, v], float)[:, None, None], (2, *size))


def test_saturation_speeds_are_those_of_the_paper():
    assert saturation_speed((256, 256)) == pytest.approx(54.3, abs=0.05)
    assert saturation_speed((480, 832)) == pytest.approx(144.1, abs=0.05)


@pytest.mark.parametrize("background, colour", [("white", 1.0), ("black", 0.0)])
def test_still_pixels_take_the_background(background, colour):
    assert np.all(flow_to_rgb(np.zeros((2, 8, 8)), background=background) == colour)


@pytest.mark.parametrize("background", ["white", "black"])
def test_moving_left_at_full_speed_is_red(background):
    rgb = flow_to_rgb(_constant(-1000.0, 0.0), background=background)
    np.testing.assert_allclose(rgb[:, 0, 0], [1, 0, 0], atol=1e-12)


def test_the_wheel_has_the_published_segment_lengths():
    turns = np.cumsum([0, 15, 6, 4, 11, 13]) / 55
    angle = turns * 2 * np.pi - np.pi
    flow = 1000 * np.stack([np.cos(angle), np.sin(angle)])[:, None]
    hues = [[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 1]]
    np.testing.assert_allclose(flow_to_rgb(flow)[:, 0].T, hues, atol=1e-9)


@pytest.mark.parametrize("background", ["white", "black"])
@pytest.mark.parametrize("sigma", [0.05, 0.15, 1.0])
def test_the_way_back_is_exact_below_saturation(background, sigma):
    flow = _some_flow() * sigma / 0.15
    back = rgb_to_flow(flow_to_rgb(flow, sigma, background), sigma, background)
    np.testing.assert_allclose(back, flow, atol=1e-9)


def test_eight_bits_cost_less_than_a_hundredth_of_the_saturation_speed():
    flow = _some_flow()
    bytes_ = np.round(flow_to_rgb(flow) * 255)
    error = np.linalg.norm(rgb_to_flow(bytes_ / 255) - flow, axis=1)
    assert error.mean() < 0.005 * saturation_speed(flow.shape[-2:])


def test_saturated_pixels_come_back_at_the_saturation_speed_with_their_direction():
    size = (32, 32)
    back = rgb_to_flow(flow_to_rgb(_constant(300.0, 400.0, size)))
    speed = saturation_speed(size)
    np.testing.assert_allclose(back[:, 0, 0], [0.6 * speed, 0.8 * speed], rtol=1e-9)


def test_the_way_back_is_the_nearest_drawable_colour():
    rng = np.random.default_rng(0)
    noisy = rng.uniform(-0.1, 1.1, (3, 12, 12))
    mine = np.square(flow_to_rgb(rgb_to_flow(noisy)) - noisy).sum(0)
    angle, m = np.meshgrid(np.linspace(-np.pi, np.pi, 220), np.linspace(0, 1, 60))
    reach = saturation_speed((60, 220))
    drawable = flow_to_rgb(np.stack([m * np.cos(angle), m * np.sin(angle)]) * reach).reshape(3, -1)
    # Projection comes before clipping at m = 1, so only unclipped pixels are the nearest of all.
    free = np.linalg.norm(rgb_to_flow(noisy), axis=0) < 0.999 * saturation_speed((12, 12))
    best = np.square(noisy[:, free, None] - drawable[:, None]).sum(0).min(1)
    assert free.sum() > 40 and np.all(mine[free] <= best + 1e-9)


def test_the_same_relative_motion_has_the_same_colour_at_any_size():
    small, large = _constant(1.0, -2.0, (30, 40)), _constant(4.0, -8.0, (120, 160))
    np.testing.assert_allclose(flow_to_rgb(small)[:, 0, 0], flow_to_rgb(large)[:, 0, 0], atol=1e-12)


def test_torch_in_torch_out_and_numpy_in_numpy_out():
    flow = _some_flow().astype(np.float32)
    from_torch = flow_to_rgb(torch.from_numpy(flow))
    assert isinstance(from_torch, torch.Tensor) and from_torch.dtype == torch.float32
    np.testing.assert_array_equal(from_torch.numpy(), flow_to_rgb(flow))
    assert isinstance(rgb_to_flow(flow_to_rgb(flow)), np.ndarray)


@pytest.mark.parametrize("call, sentence", [
    (lambda: flow_to_rgb(np.zeros((8, 8, 2))), "(..., 2, h, w)"),
    (lambda: flow_to_rgb(np.full((2, 4, 4), np.nan)), "not finite"),
    (lambda: flow_to_rgb(np.zeros((2, 4, 4)), sigma=0), "positive share"),
    (lambda: flow_to_rgb(np.zeros((2, 4, 4)), background="whit"), "Did you mean 'white'?"),
    (lambda: rgb_to_flow(np.zeros((3, 4, 4), np.uint8)), "Divide by 255"),
])
def test_mistakes_are_explained(call, sentence):
    with pytest.raises(MotionLabError) as error:
        call()
    assert sentence in str(error.value)
