"""DeT's pictures of features: principal components as colours, and paths of two points through them (card, C4).

One basis and one scale for all frames, raw and smoothed: the same colour means the same everywhere. The numbers are in
`features`.
"""
from __future__ import annotations

import numpy as np

from motionlab.analyses.features import (CELL, colours, fit_basis, has_truth, query_points, smoothed, token_cells,
                                         token_labels)
from motionlab.analyses.inputs import GROUP
from motionlab.core.errors import MotionLabError


def component_pictures(x: np.ndarray) -> dict[str, np.ndarray]:
    """Features (f', h', w', d) as the paper colours them, in one basis and scale: {"raw", "smoothed"} -> uint8 RGB."""
    basis = fit_basis(x)
    raw = basis.project(x)
    return {"raw": colours(raw), "smoothed": colours(basis.project(smoothed(x)), raw.min(), raw.max())}


def component_video(clip, x: np.ndarray, side: int = 192, group: int = GROUP) -> np.ndarray:
    """The clip beside its components, raw and smoothed, uint8 (f, side, 3 w, 3); a latent is shown for all its
    frames."""
    import cv2

    latents = -(-np.arange(len(clip.frames)) // group)                     # frame 0 has its own, then four share one
    width = round(side * clip.frames.shape[2] / clip.frames.shape[1])
    panels = [clip.frames, *(pictures[latents] for pictures in component_pictures(x).values())]
    big = [np.stack([cv2.resize(frame, (width, side), interpolation=cv2.INTER_NEAREST) for frame in panel])
           for panel in panels]
    return np.concatenate(big, axis=2)


def path_panels(x: np.ndarray, clip, cell: int = CELL, points=None) -> tuple[dict, dict | None]:
    """For `figures.component_paths`: {"raw", "smoothed"} -> `point_paths`, and -> all tokens by label (or None)."""
    basis = fit_basis(x)
    shown = {"raw": basis.project(x), "smoothed": basis.project(smoothed(x))}
    paths = {title: point_paths(values, clip, cell, points) for title, values in shown.items()}
    if not has_truth(clip):
        return paths, None
    labels = token_labels(clip, cell=cell)
    return paths, {title: {"foreground": values[labels == 1], "background": values[labels == 0]}
                   for title, values in shown.items()}


def point_paths(coordinates: np.ndarray, clip, cell: int = CELL, points=None,
                group: int = GROUP) -> dict[str, np.ndarray]:
    """{"foreground", "background"}: the components (f', 3) of one point each, over latent frames (the paper's Fig. 2).

    Args:
        coordinates: (f', h', w', 3).
        points: two pixels (x, y), looked at where they are, as the release does. None: of a clip with truth one point
            of the subject and one of the background that stay in sight, followed by their exact tracks; of another the
            middle and a corner of the frame.

    Raises:
        MotionLabError: points outside the frame.
    """
    f, h, w, _ = coordinates.shape
    if points is None and has_truth(clip):
        tracks = {name: _followed(clip, query, group) for name, query in query_points(clip, 64).items()}
    else:
        pair = np.array([[w * cell / 2, h * cell / 2], [0, 0]] if points is None else points, dtype=np.float64)
        if pair.shape != (2, 2) or (pair < 0).any() or (pair > [w * cell - 1, h * cell - 1]).any():
            raise MotionLabError(f"The points {pair.tolist()} are not two pixels of a frame of {w * cell} x "
                                 f"{h * cell}.", fix="Give [[x, y], [x, y]]: one on the subject, one off it.")
        tracks = {name: np.tile(point, (f, 1)) for name, point in zip(("foreground", "background"), pair)}
    cells = {name: token_cells(track, cell, h, w) for name, track in tracks.items()}
    return {name: coordinates[np.arange(f), at[:, 1], at[:, 0]] for name, at in cells.items()}


def _followed(clip, query, group):
    """The track (f', 2), at latent frames, of the query point that is in sight most of the time."""
    tracks, visible = (values[::group] for values in clip.tracks(query))
    return tracks[:, visible.sum(0).argmax()]
