"""Optical flow of a clip: DIS (no weights) and torchvision's RAFT (weights by path, nothing is downloaded).

Every teacher takes frames uint8 (f, h, w, 3), f >= 2, and returns float32 (f-1, 2, h, w): channels (dx, dy) in pixels
per frame. Forward flow says where a pixel of frame t is in frame t+1; `backward=True` says where a pixel of frame t+1
was in frame t. Pixel (row j, column i) has its centre at x = i, y = j.
"""
from __future__ import annotations

import inspect
import math
import numbers
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from motionlab.core.errors import MotionLabError, nearest, one_of
from motionlab.teachers.weights import fill, load_state, to_device
from motionlab.video import check_frames

DIS_PRESETS = {"ultrafast": 0, "fast": 1, "medium": 2}
DIS_SMALLEST = 12  # OpenCV's own limit
RAFT_SMALLEST = 128  # below it RAFT's coarsest correlation level has no pixels left
# Names under which torchvision stores its weights; see `find_raft_weights`.
RAFT_FILES = "raft_large_C_T_SKHT_V2*.pth", "raft_large*.pth", "raft_small*.pth"


def flow(frames: np.ndarray, teacher: str = "dis", **options) -> np.ndarray:
    """Flow of a clip from the named teacher; `options` are that teacher's own.

    Args:
        frames: uint8 (f, h, w, 3), f >= 2; for 'exact' a clip of the world instead.
        teacher: 'exact', 'dis' or 'raft'.

    Returns:
        float32 (f-1, 2, h, w), (dx, dy) in pixels per frame.

    Raises:
        MotionLabError: unknown teacher or option, and what the teacher itself raises.
    """
    return call_teacher(FLOW_TEACHERS, teacher, options, frames)


def call_teacher(teachers: dict[str, Callable], name: str, options: dict, *inputs):
    """Call one of `teachers` after checking its name and the names of its options.

    Raises:
        MotionLabError: unknown teacher or option, naming the nearest.
    """
    teach = teachers[one_of(name, teachers, "teacher")]
    known = list(inspect.signature(teach).parameters)[len(inputs):]
    for option in options:
        if option not in known:
            raise MotionLabError(f"Teacher '{name}' has no option '{option}'.{nearest(option, known)}",
                                 fix=f"Its options: {', '.join(known)}.")
    return teach(*inputs, **options)


# --- DIS ------------------------------------------------------------------------------------------


def dis_flow(frames: np.ndarray, preset: str = "medium", backward: bool = False) -> np.ndarray:
    """Dense inverse search flow (Kroeger et al. 2016, arXiv 1603.03590; OpenCV's implementation).

    Runs on one thread, since the result may depend on how OpenCV splits the rows among threads.

    Args:
        frames: uint8 (f, h, w, 3), f >= 2, both sides >= 12.
        preset: 'ultrafast', 'fast' or 'medium'.
        backward: flow from frame t+1 to t instead.

    Returns:
        float32 (f-1, 2, h, w), (dx, dy) in pixels per frame.

    Raises:
        MotionLabError: bad or too few frames, frames too small, unknown preset.
    """
    import cv2

    frames = check_frames(frames, at_least=2, who="dis_flow")
    one_of(preset, DIS_PRESETS, "DIS preset")
    if min(frames.shape[1:3]) < DIS_SMALLEST:
        raise MotionLabError(f"dis_flow needs frames of at least {DIS_SMALLEST}x{DIS_SMALLEST} pixels, got "
                             f"{frames.shape[1]}x{frames.shape[2]}.", fix="Render or read the clip at a larger size.")
    grays = [cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY) for frame in frames]
    search = cv2.DISOpticalFlow_create(DIS_PRESETS[preset])
    with one_thread():
        flows = [search.calc(*_ordered(first, second, backward), None) for first, second in zip(grays, grays[1:])]
    return np.ascontiguousarray(np.stack(flows).transpose(0, 3, 1, 2), dtype=np.float32)


@contextmanager
def one_thread():
    """OpenCV on one thread inside the block, as before after it."""
    import cv2

    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def _ordered(first, second, backward: bool):
    return (second, first) if backward else (first, second)


# --- RAFT -----------------------------------------------------------------------------------------


def raft_flow(frames: np.ndarray, weights: str | Path | None = None, device: str = "cpu", iterations: int = 12,
              batch: int = 4, backward: bool = False) -> np.ndarray:
    """RAFT flow (Teed and Deng 2020, arXiv 2003.12039; torchvision's raft_small or raft_large, told by the weights).

    Frames whose short side is under 128 pixels are enlarged, sides that are no multiple of 8 padded by their edge; the
    vectors are given in pixels of the frames as they came.

    Args:
        frames: uint8 (f, h, w, 3), f >= 2.
        weights: a state dict (.pth or .safetensors); None looks where torchvision keeps its downloads.
        device: a torch device.
        iterations: refinement steps.
        batch: frame pairs at a time.
        backward: flow from frame t+1 to t instead.

    Returns:
        float32 (f-1, 2, h, w), (dx, dy) in pixels per frame.

    Raises:
        MotionLabError: bad or too few frames, no weights, weights of another network, no such device.
    """
    import torch

    frames = check_frames(frames, at_least=2, who="raft_flow")
    for name, value in (("iterations", iterations), ("batch", batch)):
        if not isinstance(value, numbers.Integral) or value < 1:
            raise MotionLabError(f"raft_flow: {name} must be a whole number >= 1, got {value!r}.")
    model = _load_raft(_raft_file(weights), device)
    pictures = torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 3, 1, 2)))
    flows = []
    with torch.inference_mode():
        for start in range(0, len(frames) - 1, batch):
            stop = min(start + batch, len(frames) - 1)
            pair = _ordered(pictures[start:stop], pictures[start + 1:stop + 1], backward)
            flows.append(_raft_pairs(model, *(picture.to(device) for picture in pair), iterations).cpu())
    return torch.cat(flows).numpy().astype(np.float32)


def find_raft_weights() -> Path | None:
    """RAFT weights in torch's download folder (as torchvision names them), best first, or None."""
    import torch

    folder = Path(torch.hub.get_dir()) / "checkpoints"
    found = [file for pattern in RAFT_FILES for file in sorted(folder.glob(pattern))]
    return found[0] if found else None


def _raft_file(weights) -> Path:
    advice = "Fetch torchvision's raft_small or raft_large weights and pass weights=PATH; teacher 'dis' needs none."
    if weights is None:
        file = find_raft_weights()
        if file is None:
            raise MotionLabError("There are no RAFT weights in torch's download folder, and none were named.",
                                 fix=advice)
        return file
    file = Path(weights).expanduser()
    if not file.is_file():
        raise MotionLabError(f"There are no RAFT weights at '{file}'.", fix=advice)
    return file


def _load_raft(file: Path, device: str):
    from torchvision.models.optical_flow import raft_large, raft_small

    state = load_state(file)
    stem = state.get("feature_encoder.convnormrelu.0.weight")
    if stem is None:
        raise MotionLabError(f"'{file}' holds no torchvision RAFT weights (it lacks 'feature_encoder...').",
                             fix="The original repository's checkpoints have other names: use torchvision's.")
    model = (raft_small if len(stem) == 32 else raft_large)(weights=None, progress=False)
    fill(model, state, f"'{file}' does not fit torchvision's RAFT", "Download the weights again, whole.")
    return to_device(model.eval(), device)


def _raft_pairs(model, first, second, iterations: int):
    """uint8 (b, 3, h, w) twice -> (b, 2, h, w) on the given grid."""
    from torch.nn import functional as F

    h, w = first.shape[-2:]
    scale = max(1.0, RAFT_SMALLEST / min(h, w))
    big = (math.ceil(h * scale), math.ceil(w * scale))
    pad = [0, -big[1] % 8, 0, -big[0] % 8]  # right and below only, so that the grid's origin stays

    def prepare(picture):
        picture = picture.float() / 127.5 - 1
        if big != (h, w):
            picture = F.interpolate(picture, big, mode="bilinear", align_corners=False)
        return F.pad(picture, pad, mode="replicate")

    vectors = model(prepare(first), prepare(second), num_flow_updates=iterations)[-1][..., :big[0], :big[1]]
    if big == (h, w):
        return vectors
    vectors = F.interpolate(vectors, (h, w), mode="bilinear", align_corners=False, antialias=True)
    return vectors * vectors.new_tensor([w / big[1], h / big[0]]).view(1, 2, 1, 1)


# --- exact ----------------------------------------------------------------------------------------


def exact_flow(clip, backward: bool = False) -> np.ndarray:
    """True flow (f-1, 2, h, w) of a world clip, in pixels per frame.

    Args:
        clip: a `motionlab.world.Clip` in place of frames.
        backward: flow from frame t+1 to t instead.

    Raises:
        MotionLabError: not a world clip, or fewer than two frames.
    """
    check_world_clip(clip)
    return clip.flow_backward if backward else clip.flow


def check_world_clip(clip) -> None:
    """Raise unless `clip` is a clip of the world with at least two frames."""
    if not hasattr(clip, "scene"):
        raise MotionLabError("The exact teacher needs a clip of the world: pictures alone have no truth.",
                             fix="Pass what `world.render` returns, or choose another teacher.")
    if len(clip.frames) < 2:
        raise MotionLabError("The exact teacher needs a clip of at least two frames, got one.")


FLOW_TEACHERS: dict[str, Callable] = {"exact": exact_flow, "dis": dis_flow, "raft": raft_flow}


# --- error against the truth ----------------------------------------------------------------------


def end_point_error(flow: np.ndarray, truth: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Mean length of the difference between two flows, in pixels (the end-point error of the flow literature).

    Args:
        flow, truth: (..., 2, h, w), any equal leading axes.
        mask: bool (..., h, w): pixels that count, e.g. a subject, or those not occluded. None: all.

    Raises:
        MotionLabError: shapes differ, NaN in either flow where it counts, or the mask is empty.
    """
    flow, truth = np.asarray(flow, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    if flow.ndim < 3 or flow.shape[-3] != 2 or flow.shape != truth.shape:
        raise MotionLabError(f"Flows must both be (..., 2, h, w); got {flow.shape} and {truth.shape}.")
    error = np.linalg.norm(flow - truth, axis=-3)
    counts = _check_mask(mask, error.shape)
    if not np.isfinite(error[counts]).all():
        raise MotionLabError("The flow or its truth holds NaN or infinite values where they count.",
                             fix="Leave those pixels out with mask=.")
    return float(np.mean(error[counts]))


def _check_mask(mask, shape: tuple[int, ...]) -> np.ndarray:
    if mask is None:
        return np.ones(shape, bool)
    mask = np.asarray(mask)
    if mask.shape != shape or mask.dtype != bool:
        raise MotionLabError(f"The mask must be bool {shape}, got {mask.dtype} {mask.shape}.",
                             fix="Flow has one step less than the clip has frames: use masks[:-1] with forward flow.")
    if not mask.any():
        raise MotionLabError("The mask is empty: no pixel counts.")
    return mask
