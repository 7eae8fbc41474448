"""Teachers against known motion, their adapters against fakes, and a sentence for each mistake."""
from __future__ import annotations

import numpy as np
import pytest
import torch

import videos
from motionlab.core.errors import MotionLabError
from motionlab.teachers.cotracker import cotracker_tracks, find_cotracker
from motionlab.teachers.flow import dis_flow, end_point_error, find_raft_weights, flow, raft_flow
from motionlab.teachers.following import chain_flow_tracks, lucas_kanade_tracks
from motionlab.teachers.points import Tracks
from motionlab.teachers.tracks import track_error, tracks

STEP = (2, -1)
INNER = np.s_[..., 10:-10, 10:-10]


@pytest.fixture(scope="module")
def moving() -> np.ndarray:
    return videos.moving_texture(5, 64, 80, STEP)


def constant_flow(frames: int = 5, height: int = 64, width: int = 80, step=STEP) -> np.ndarray:
    return np.broadcast_to(np.array(step, np.float32)[None, :, None, None], (frames - 1, 2, height, width)).copy()


def grid(step: int = 12) -> np.ndarray:
    x, y = np.meshgrid(np.arange(22, 60, step), np.arange(22, 44, step))
    return np.stack([x.ravel(), y.ravel()], -1).astype(np.float32)


# --- flow -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("backward, sign", [(False, 1), (True, -1)])
def test_dis_finds_a_known_translation(moving, backward, sign):
    found = dis_flow(moving, backward=backward)
    assert found.shape == (4, 2, 64, 80) and found.dtype == np.float32
    assert end_point_error(found[INNER], sign * constant_flow()[INNER]) < 0.15


def test_dis_is_repeatable_and_leaves_the_threads_alone(moving):
    import cv2

    before = cv2.getNumThreads()
    assert np.array_equal(dis_flow(moving), flow(moving, teacher="dis"))
    assert cv2.getNumThreads() == before


def test_dis_on_still_frames_is_still(moving):
    assert np.abs(dis_flow(np.repeat(moving[:1], 3, axis=0))).max() < 1e-3


def test_dis_mirrors_with_the_picture(moving):
    mirrored = dis_flow(np.ascontiguousarray(moving[:, :, ::-1]))[..., ::-1] * np.array([-1, 1])[:, None, None]
    assert end_point_error(mirrored[INNER], dis_flow(moving)[INNER]) < 0.15


@pytest.fixture(scope="module")
def raft_weights(tmp_path_factory):
    """raft_small with random weights, as torchvision would store them."""
    from torchvision.models.optical_flow import raft_small

    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "raft.pth"
    torch.save(raft_small(weights=None).state_dict(), file)
    return file


def test_raft_runs_at_any_size_and_returns_that_size(moving, raft_weights):
    small = flow(moving[:3, :49, :61], teacher="raft", weights=raft_weights, iterations=1, batch=1)
    assert small.shape == (2, 2, 49, 61) and small.dtype == np.float32 and np.isfinite(small).all()
    backward = raft_flow(moving[:2], weights=raft_weights, iterations=1, backward=True)
    turned = raft_flow(moving[1::-1], weights=raft_weights, iterations=1)
    np.testing.assert_array_equal(backward, turned)


@pytest.mark.parametrize("size", [(49, 61), (64, 128), (130, 139)])
def test_raft_vectors_are_rescaled_to_the_frames_given(monkeypatch, raft_weights, size):
    """A network that answers (8, 16) on its own grid: on frames enlarged s times that is (8, 16) / s."""
    seen = []

    def fake(first, second, num_flow_updates):
        seen.append(first)
        return [torch.tensor([8.0, 16.0]).view(1, 2, 1, 1).expand(len(first), 2, *first.shape[-2:])]

    monkeypatch.setattr("motionlab.teachers.flow._load_raft", lambda file, device: fake)
    found = raft_flow(np.full((3, *size, 3), 255, np.uint8), weights=raft_weights)
    scale = max(1, 128 / min(size))
    np.testing.assert_allclose(found.mean((0, 2, 3)), [8 / scale, 16 / scale], rtol=0.02)
    assert found.shape == (2, 2, *size)
    assert min(seen[0].shape[-2:]) >= 128 and not any(side % 8 for side in seen[0].shape[-2:])
    assert torch.allclose(seen[0], torch.ones(()), atol=1e-5)  # 255 becomes 1, padding repeats the edge


def test_raft_weights_that_are_not(moving, tmp_path, monkeypatch, raft_weights):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    assert find_raft_weights() is None
    with pytest.raises(MotionLabError, match="no RAFT weights in torch's download folder") as error:
        raft_flow(moving)
    assert "teacher 'dis' needs none" in error.value.fix
    with pytest.raises(MotionLabError, match="no RAFT weights at '.*gone.pth'"):
        raft_flow(moving, weights=tmp_path / "gone.pth")
    (tmp_path / "noise.pth").write_bytes(b"noise")
    with pytest.raises(MotionLabError, match="cannot be read as weights"):
        raft_flow(moving, weights=tmp_path / "noise.pth")
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(MotionLabError, match="holds no torchvision RAFT weights"):
        raft_flow(moving, weights=tmp_path / "other.pth")
    state = torch.load(raft_weights, weights_only=True)
    state.popitem()
    torch.save(state, tmp_path / "short.pth")
    with pytest.raises(MotionLabError, match="does not fit torchvision's RAFT"):
        raft_flow(moving, weights=tmp_path / "short.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(MotionLabError, match="holds no state dict"):
        raft_flow(moving, weights=tmp_path / "list.pth")
    with pytest.raises(MotionLabError, match="Device 'abacus' cannot be used"):
        raft_flow(moving, weights=raft_weights, device="abacus")
    with pytest.raises(MotionLabError, match="iterations must be a whole number"):
        raft_flow(moving, weights=raft_weights, iterations=0)


def test_raft_finds_torchvisions_download(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    for name in ("raft_small_C_T_V2-01064c6d.pth", "raft_large_C_T_SKHT_V2-ff5fadd5.pth"):
        (folder / name).touch()
    assert find_raft_weights().name.startswith("raft_large_C_T_SKHT_V2")


@pytest.mark.parametrize("frames, says", [
    (np.zeros((1, 32, 32, 3), np.uint8), "at least 2 frames, got 1"),
    (np.zeros((3, 32, 32, 3), np.float32), "needs uint8 frames, got float32"),
    (np.zeros((3, 32, 32), np.uint8), "needs RGB frames"),
])
def test_bad_frames_for_every_teacher(frames, says, raft_weights):
    point = np.array([[4.0, 4.0]])
    for call in (lambda: dis_flow(frames), lambda: raft_flow(frames, weights=raft_weights),
                 lambda: lucas_kanade_tracks(frames, point), lambda: cotracker_tracks(frames, point)):
        with pytest.raises(MotionLabError, match=says):
            call()


def test_dis_names_its_limits():
    with pytest.raises(MotionLabError, match="at least 12x12 pixels, got 8x40"):
        dis_flow(np.zeros((2, 8, 40, 3), np.uint8))
    with pytest.raises(MotionLabError, match="Did you mean 'fast'"):
        dis_flow(np.zeros((2, 32, 40, 3), np.uint8), preset="fst")


def test_misspelt_teachers_and_options(moving):
    with pytest.raises(MotionLabError, match="Unknown teacher 'rafft'. Did you mean 'raft'"):
        flow(moving, teacher="rafft")
    with pytest.raises(MotionLabError, match="no option 'preest'. Did you mean 'preset'"):
        flow(moving, preest="fast")
    with pytest.raises(MotionLabError, match="no option 'windw'. Did you mean 'window'"):
        tracks(moving, grid(), windw=9)
    with pytest.raises(MotionLabError, match="Unknown teacher 'lucas'"):
        tracks(moving, grid(), teacher="lucas")


def test_end_point_error_golden():
    truth = np.zeros((1, 2, 2, 3))
    guess = truth.copy()
    guess[0, :, 0, 0] = 3, 4
    mask = np.zeros((1, 2, 3), bool)
    mask[0, 0, :2] = True
    assert end_point_error(guess, truth) == pytest.approx(5 / 6)
    assert end_point_error(guess, truth, mask) == 2.5
    assert end_point_error(np.stack([guess, guess]), np.stack([truth, truth])) == pytest.approx(5 / 6)  # batch axis
    guess[0, 0, 1, 2] = np.nan
    assert end_point_error(guess, truth, mask) == 2.5
    for bad, says in (((guess, truth), "NaN"), ((guess, truth[..., :2]), "must both be"),
                      ((guess, truth, mask[:, :1]), "must be bool"), ((guess, truth, mask & False), "is empty"),
                      ((guess, truth, mask.astype(int)), "must be bool")):
        with pytest.raises(MotionLabError, match=says):
            end_point_error(*bad)


# --- tracks ---------------------------------------------------------------------------------------


def known_tracks(points: np.ndarray, query_frame: int, frames: int = 5) -> np.ndarray:
    return points[None] + (np.arange(frames) - query_frame)[:, None, None] * np.array(STEP)


@pytest.mark.parametrize("query_frame", [0, 2, 4])
def test_lucas_kanade_follows_both_ways(moving, query_frame):
    found = tracks(moving, grid(), query_frame)
    assert found.xy.shape == (5, len(grid()), 2) and found.xy.dtype == np.float32 and found.visible.all()
    truth = known_tracks(grid(), query_frame)
    assert track_error(found, truth, found.visible) < 0.1
    np.testing.assert_array_equal(found.xy[query_frame], grid())


def test_lucas_kanade_loses_what_leaves_flat_or_vanishes(moving):
    frames = moving.copy()
    frames[3:, 20:44, 20:44] = 127  # a grey patch hides what was there
    points = np.array([[78.0, 30.0], [30.0, 34.0], [60.0, 50.0]])
    found = lucas_kanade_tracks(frames, points, fb_threshold=0.5)
    assert not found.visible[-1, 0]  # left the frame on the right
    assert found.visible[:3, 1].all() and not found.visible[3:, 1].any()  # hidden from frame 3 on
    assert found.visible[:, 2].all()
    np.testing.assert_array_equal(found.xy[4, 1], found.xy[2, 1])  # keeps its last position
    flat = lucas_kanade_tracks(np.full((3, 32, 32, 3), 90, np.uint8), np.array([[16.0, 16.0]]))
    assert flat.visible[0].all() and not flat.visible[1:].any() and (flat.xy == 16).all()


@pytest.mark.parametrize("points, says", [
    (np.array([[3.0, np.nan]]), "point 0 is"),
    (np.array([[5.0, 5.0], [90.0, 5.0]]), "1 of 2 points lie outside the 80x64"),
    (np.array([[10.0, 75.0]]), "outside"), (np.zeros((0, 2)), "at least one point"),
    (np.zeros((3, 3)), "at least one point"),
    (["a"], "points as numbers"),
])
def test_bad_points_for_every_tracker(moving, points, says):
    for call in (lambda: lucas_kanade_tracks(moving, points), lambda: cotracker_tracks(moving, points, predictor=print),
                 lambda: chain_flow_tracks(constant_flow(), points)):
        with pytest.raises(MotionLabError, match=says):
            call()


def test_swapped_points_are_guessed(moving):
    with pytest.raises(MotionLabError) as error:
        lucas_kanade_tracks(moving, np.array([[10.0, 75.0]]))
    assert "(x, y), not (row, column)" in error.value.fix


@pytest.mark.parametrize("options, says", [
    (dict(query_frame=5), "from 0 to 4, got 5"), (dict(query_frame=-1), "from 0 to 4"),
    (dict(query_frame=0.5), "from 0 to 4"),
    (dict(fb_threshold=0), "positive number of pixels"), (dict(window=1), "window must be"),
    (dict(levels=-1), "levels must be"),
])
def test_bad_lucas_kanade_options(moving, options, says):
    with pytest.raises(MotionLabError, match=says):
        lucas_kanade_tracks(moving, grid(), **options)


def test_chained_flow_integrates():
    found = chain_flow_tracks(constant_flow(), grid())
    np.testing.assert_allclose(found.xy, known_tracks(grid(), 0), atol=1e-5)
    both = chain_flow_tracks(constant_flow(), grid(), 2, flow_bwd=-constant_flow())
    np.testing.assert_allclose(both.xy, known_tracks(grid(), 2), atol=1e-5)
    assert both.visible.all()


def test_chained_flow_reads_between_pixels():
    """A linear field is read exactly: x' = 1.1 x."""
    field = np.zeros((2, 2, 8, 20), np.float32)
    field[:, 0] = 0.1 * np.arange(20)
    found = chain_flow_tracks(field, np.array([[5.5, 3.25]]))
    np.testing.assert_allclose(found.xy[:, 0], [[5.5, 3.25], [6.05, 3.25], [6.655, 3.25]], atol=1e-5)


def test_chained_flow_loses_points():
    leaving = chain_flow_tracks(constant_flow(step=(30, 0)), np.array([[10.0, 10.0]]))
    assert leaving.visible[:, 0].tolist() == [True, True, True, False, False]
    assert leaving.xy[:, 0, 0].tolist() == [10, 40, 70, 70, 70]
    disagree = chain_flow_tracks(constant_flow(), grid(), flow_bwd=constant_flow())
    assert not disagree.visible[1:].any()


def test_chained_flow_mistakes():
    nan = constant_flow()
    nan[0, 0, 0, 0] = np.nan
    for call, says in ((lambda: chain_flow_tracks(nan, grid()), "NaN"),
                       (lambda: chain_flow_tracks(constant_flow()[:, :1], grid()), r"needs flow \(f-1, 2, h, w\)"),
                       (lambda: chain_flow_tracks(constant_flow(1), grid()), "f >= 2"),
                       (lambda: chain_flow_tracks(constant_flow(), grid(), 1), "needs backward flow"),
                       (lambda: chain_flow_tracks(constant_flow(), grid(), 0, constant_flow(4)), "but backward flow")):
        with pytest.raises(MotionLabError, match=says):
            call()


def test_track_error_golden():
    truth = np.zeros((3, 2, 2))
    guess = truth.copy()
    guess[1, 0] = 3, 4
    visible = np.ones((3, 2), bool)
    visible[2, 1] = False
    assert track_error(guess, truth, visible) == 1
    assert track_error(Tracks(guess, visible), truth, visible, query_frame=0) == pytest.approx(5 / 3)
    guess[2, 1] = np.nan  # where truth is hidden nothing counts
    assert track_error(guess, truth, visible) == 1
    for bad, says in (((guess, truth, np.ones((3, 2), bool)), "NaN"), ((guess, truth[:2], visible), "must both be"),
                      ((guess, truth, visible[:2]), "visible must be bool"),
                      ((guess, truth, visible & False), "No point"),
                      ((guess, truth, visible.astype(float)), "visible must be bool")):
        with pytest.raises(MotionLabError, match=says):
            track_error(*bad)


# --- CoTracker ------------------------------------------------------------------------------------


class FakeNetwork(torch.nn.Module):
    """Answers probability 0.5 everywhere, like a network that is unsure."""

    def forward(self, video, queries, iters):
        n = queries.shape[1]
        return torch.zeros(1, video.shape[1], n, 2), torch.full((1, video.shape[1], n), 0.5), None


class FakePredictor:
    """Records what it is asked; follows the interface of CoTracker's whole-video predictor, its fixed threshold too."""

    def __init__(self):
        self.model = FakeNetwork()

    def __call__(self, video, queries=None, backward_tracking=False):
        self.video, self.queries, self.backward_tracking = video, queries, backward_tracking
        xy, visibility, *_ = self.model.forward(video=video, queries=queries, iters=6)
        xy = xy + queries[:, None, :, 1:]
        return xy, visibility > 0.9


@pytest.mark.parametrize("query_frame", [0, 3])
def test_cotracker_queries_carry_the_query_frame(moving, query_frame):
    fake = FakePredictor()
    found = cotracker_tracks(moving, grid(), query_frame, predictor=fake)
    assert fake.queries.shape == (1, len(grid()), 3)
    assert (fake.queries[0, :, 0] == query_frame).all()  # (t, x, y), and t is not the release's 1
    np.testing.assert_array_equal(fake.queries[0, :, 1:].numpy(), grid())
    assert fake.video.shape == (1, 5, 3, 64, 80) and fake.video.max() > 1  # 0..255, as the network expects
    assert fake.backward_tracking == (query_frame > 0)
    assert found.xy.shape == (5, len(grid()), 2) and found.visible.dtype == bool


def test_cotracker_visibility_threshold(moving):
    fake = FakePredictor()
    assert not cotracker_tracks(moving, grid(), predictor=fake).visible.any()
    assert cotracker_tracks(moving, grid(), predictor=fake, visibility_threshold=0.4).visible.all()
    assert not cotracker_tracks(moving, grid(), predictor=fake, visibility_threshold=0.6).visible.any()
    assert "forward" not in vars(fake.model)  # left as it was
    mine = fake.model.forward = type(fake.model).forward.__get__(fake.model)
    cotracker_tracks(moving, grid(), predictor=fake, visibility_threshold=0.4)
    assert vars(fake.model)["forward"] is mine  # also where somebody had put one of their own

    def soft(video, queries, backward_tracking):
        return torch.zeros(1, 5, queries.shape[1], 2), torch.full((1, 5, queries.shape[1]), 0.7)

    assert cotracker_tracks(moving, grid(), predictor=soft, visibility_threshold=0.6).visible.all()
    assert not cotracker_tracks(moving, grid(), predictor=soft).visible.any()


def test_cotracker_from_a_checkout(moving, tmp_path):
    """A stand-in checkout with the real layout: loaded by path, weights fitted, nothing left on the import path."""
    import sys

    package = tmp_path / "co" / "cotracker"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "predictor.py").write_text(
        "import torch\n"
        "class CoTrackerPredictor(torch.nn.Module):\n"
        "    def __init__(self, checkpoint, offline, window_len):\n"
        "        super().__init__()\n"
        "        self.model, self.setting = torch.nn.Linear(2, 2), (offline, window_len)\n"
        "    def forward(self, video, queries, backward_tracking):\n"
        "        n = queries.shape[1]\n"
        "        xy = torch.zeros(1, video.shape[1], n, 2) + self.setting[1]\n"
        "        return xy, torch.ones(1, video.shape[1], n, dtype=torch.bool)\n")
    assert find_cotracker(tmp_path / "co") and find_cotracker(tmp_path) is None
    path = list(sys.path)
    try:
        for name, window in (("scaled_offline.pth", 60), ("scaled_online.pth", 16)):
            torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / name)
            found = cotracker_tracks(moving, grid(), checkpoint=tmp_path / name, hub_dir=tmp_path / "co")
            assert (found.xy == window).all() and found.visible.all()
        torch.save(torch.nn.Linear(3, 2).state_dict(), tmp_path / "other.pth")
        with pytest.raises(MotionLabError, match="does not fit CoTracker3"):
            cotracker_tracks(moving, grid(), checkpoint=tmp_path / "other.pth", hub_dir=tmp_path / "co")
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "cotracker"]:
            del sys.modules[name]
    assert sys.path == path


def test_cotracker_absent(moving, tmp_path, monkeypatch):
    import sys

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "cotracker", None)
    weights = tmp_path / "scaled_offline.pth"
    torch.save({"a": torch.zeros(1)}, weights)
    with pytest.raises(MotionLabError, match="no checkpoint was named") as error:
        tracks(moving, grid(), teacher="cotracker")
    assert "'lucas_kanade' needs no weights" in error.value.fix
    with pytest.raises(MotionLabError, match="no CoTracker weights at '.*gone.pth'"):
        cotracker_tracks(moving, grid(), checkpoint=tmp_path / "gone.pth")
    with pytest.raises(MotionLabError, match="CoTracker is not installed"):
        cotracker_tracks(moving, grid(), checkpoint=weights)
    with pytest.raises(MotionLabError, match="holds no CoTracker"):
        cotracker_tracks(moving, grid(), checkpoint=weights, hub_dir=tmp_path)
    with pytest.raises(MotionLabError, match="between 0 and 1"):
        cotracker_tracks(moving, grid(), predictor=FakePredictor(), visibility_threshold=1.5)


def test_cotracker_answers_of_another_shape(moving):
    def short(video, queries, backward_tracking):
        return torch.zeros(1, 3, queries.shape[1], 2), torch.ones(1, 3, queries.shape[1])

    with pytest.raises(MotionLabError, match="where .* were expected"):
        cotracker_tracks(moving, grid(), predictor=short)
