"""Named sidecars: what a method wants beside a clip's latents x1, and how each is made.

A sidecar is made in two steps. `draw` turns clip i of a source into an array (pictures, tracks, masks), wherever the clip
is rendered or read; `encode` turns a stack of such arrays into a tensor, with the generator's autoencoder or a teacher.
A new kind is a function or two here, or in a module of its own, and a line in `KINDS`.
"""
from __future__ import annotations

import hashlib
import inspect
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from motionlab.core.errors import MotionLabError, one_of
from motionlab.data.correlations import (about_teacher, draw_shown, draw_transport, encode_correlation, encode_features, encode_tracked,
                                         encode_transport)
from motionlab.data.tracks import draw_mask, draw_tracks, encode_mask, encode_tracks
from motionlab.flow_rgb import SIGMA, WORLD_SIGMA, flow_video, rgb_to_flow
from motionlab.models.pipe import Pipe
from motionlab.video import as_video

TEACHERS = ("auto", "exact", "dis", "raft", "other", "still")
CAPTION = 2048           # bytes at most
GROUP = 4                # frames per latent after the first: the same in every supported autoencoder


@dataclass(frozen=True)
class Sidecar:
    """One thing beside x1.

    kind: of `KINDS`. settings: of its `draw`. key: how a batch calls it, by default as its kind.

    Raises:
        MotionLabError: an unknown kind or setting (the nearest is named).
    """

    kind: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    key: str = ""

    def __post_init__(self):
        one_of(self.kind, KINDS, "sidecar")
        known = [name for function in KINDS[self.kind][:2] for name in list(inspect.signature(function).parameters)[2:]]
        for name in self.settings:
            one_of(name, known, f"setting of sidecar '{self.kind}':")
        object.__setattr__(self, "key", self.key or self.kind)

    @property
    def draw(self) -> Callable[..., np.ndarray]:
        """(source, i) -> array of clip i, with the settings that the kind's `draw` has."""
        return self._set(KINDS[self.kind][0])

    @property
    def encode(self) -> Callable[[np.ndarray, Pipe], torch.Tensor]:
        """(arrays (n, ...), pipe) -> tensor (n, ...), with the settings that the kind's `encode` has."""
        return self._set(KINDS[self.kind][1])

    def _set(self, function):
        known = list(inspect.signature(function).parameters)[2:]
        return partial(function, **{name: value for name, value in self.settings.items() if name in known})

    @property
    def label(self) -> str:
        """Its folder's name: kind and settings, readable."""
        said = [f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}" for name, value in sorted(self.settings.items())]
        return re.sub(r"[^A-Za-z0-9_=.+-]+", "-", "_".join([self.kind, *said]))

    def about(self) -> dict[str, Any]:
        """What decides its values beside the clips and the generator, for the manifest: settings, its maker's source by hash, and what the
        kind says of others, such as a teacher's weights."""
        draw, encode, *others = KINDS[self.kind]
        source = "".join(inspect.getsource(function) for function in (draw, encode))
        known = {"kind": self.kind, "settings": dict(self.settings), "maker": hashlib.sha256(source.encode()).hexdigest()[:12]}
        return known | {name: value for of in others for name, value in of(**self.settings).items()}


# ---------------------------------------------------------------------------------------------- the kinds
def draw_frames(source, i: int) -> np.ndarray:
    """The clip's frames, uint8 (f, h, w, 3)."""
    return source.clip(i).frames


def encode_clip(pictures: np.ndarray, pipe: Pipe) -> torch.Tensor:
    """Latents (n, f', c, h', w') of clips, or of anything drawn as a clip."""
    return pipe.encode_video(as_video(pictures))


def draw_stills(source, i: int) -> np.ndarray:
    """The frames that end a latent each, uint8 (f', h, w, 3)."""
    return source.clip(i).frames[::GROUP]


def encode_stills(pictures: np.ndarray, pipe: Pipe) -> torch.Tensor:
    """Each frame encoded as a picture of its own (n, f', c, h', w'), as a user has it: a clip's latent saw the frames before it."""
    n, f = pictures.shape[:2]
    return pipe.encode_video(as_video(pictures.reshape(n * f, 1, *pictures.shape[2:]))).unflatten(0, (n, f))[:, :, 0]


def encode_pictures(pictures: np.ndarray, pipe: Pipe) -> torch.Tensor:
    """Frames as they are, in [-1, 1], (n, f, 3, h, w): for a loss that an image encoder is part of."""
    return as_video(pictures)


def draw_ends(source, i: int) -> np.ndarray:
    """The first and the last frame, uint8 (2, h, w, 3)."""
    return source.clip(i).frames[[0, -1]]


def encode_ends(pictures: np.ndarray, pipe: Pipe) -> torch.Tensor:
    """As pictures in [-1, 1], (n, 2, 3, h, w): an image-to-video generator makes of them what it reads, anew at every step."""
    return as_video(pictures)


def draw_caption(source, i: int) -> np.ndarray:
    """The clip's caption as UTF-8, uint8 (CAPTION,), zeros behind it; raises MotionLabError for a longer one."""
    letters = source.clip(i).caption.encode()
    if len(letters) > CAPTION:
        raise MotionLabError(f"Clip {i} of {source.name} has a caption of {len(letters)} bytes.", fix=f"Shorten it to {CAPTION}.")
    return np.frombuffer(letters.ljust(CAPTION, b"\0"), np.uint8)


def encode_caption(letters: np.ndarray, pipe: Pipe) -> torch.Tensor:
    """As they are, (n, CAPTION); `captions` reads them."""
    return torch.from_numpy(letters.copy())


def captions(letters: torch.Tensor) -> list[str]:
    """Captions of (n, CAPTION) letters of `encode_caption`."""
    return [bytes(row.tolist()).rstrip(b"\0").decode() for row in letters.cpu()]


def draw_motion(source, i: int, teacher: str = "auto", noise: float = 0.0, background: str = "white") -> np.ndarray:
    """Optical flow drawn as pictures, uint8 (f, h, w, 3) (VideoJAM, Eq. 5).

    Args:
        teacher: "exact"; "dis" or "raft" (from the frames); "auto", exact where clips carry their flow, else RAFT where
            torchvision's weights are on disk, else DIS; "other" (the exact flow of another clip: right statistics, wrong
            content); "still" (no motion anywhere).
        noise: deviation of white noise added to both components of the flow, pixels per frame.

    Raises:
        MotionLabError: an unknown teacher; the exact flow of a clip that has none.
    """
    one_of(teacher, TEACHERS, "motion teacher")
    if teacher == "auto":
        from motionlab.teachers.flow import find_raft_weights

        teacher = "exact" if source.exact else "raft" if find_raft_weights() else "dis"
    sigma = WORLD_SIGMA if source.exact else SIGMA
    if teacher == "still":
        return np.full_like(source.clip(i).frames, 255 if background == "white" else 0)
    if teacher in ("dis", "raft"):
        from motionlab.teachers.flow import flow

        return flow_video(_noisy(flow(source.clip(i).frames, teacher), noise, i), sigma, background)
    if not source.exact:
        raise MotionLabError(f"The clips of {source.name} come without exact flow, which teacher '{teacher}' needs.",
                             fix="Use teacher dis or raft, or clips of the world.")
    drawn = flow_video(source.clip((i + len(source) // 2) % len(source) if teacher == "other" else i).flow, sigma, background)
    if not noise:
        return drawn
    field = rgb_to_flow(np.moveaxis(drawn[:-1].astype(np.float64) / 255, -1, -3), sigma, background)
    return flow_video(_noisy(field, noise, i), sigma, background)


def _noisy(field, size, seed):
    return field + size * np.random.default_rng([7, seed]).normal(size=field.shape) if size else field


def encoded(source, sidecars, pipe: Pipe) -> dict[str, torch.Tensor]:
    """{key: (n, ...)} of x1 and sidecars of all of a source's clips, made now and kept nowhere."""
    return {one.key: one.encode(np.stack([one.draw(source, i) for i in range(len(source))]), pipe)
            for one in (Sidecar("x1"), *sidecars)}


# kind: draw, encode, and, where more decides its values than settings, what that is.
KINDS: dict[str, tuple[Callable, ...]] = {
    "x1": (draw_frames, encode_clip),
    "stills": (draw_stills, encode_stills),
    "ends": (draw_ends, encode_ends),
    "pictures": (draw_frames, encode_pictures),
    "motion": (draw_motion, encode_clip),
    "tracks": (draw_tracks, encode_tracks),
    "mask": (draw_mask, encode_mask),
    "caption": (draw_caption, encode_caption),
    "transport": (draw_transport, encode_transport),
    "correlation": (draw_shown, encode_correlation, about_teacher),
    "features": (draw_shown, encode_features, about_teacher),
    "tracked": (draw_shown, encode_tracked, about_teacher),
}


def digest(values: Any) -> str:
    """Twelve hex digits of plain values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:12]
