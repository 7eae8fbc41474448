"""Which parts of a body do sampled points fall on? Points weighted by how lonely a pixel is, beside points drawn evenly.

DeT samples the points that it tracks so that they reach hands and feet (method card 5.3, C21). Here the parts are exact.
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from motionlab.core.errors import MotionLabError
from motionlab.data.tracks import LIMIT, RADIUS, distance_weighted_points
from motionlab.world import Clip, random_scene, render

SPECIES = ("person", "dog")
SMALL = ("foot", "arm_lower", "tail")           # ends of the names of parts: feet, forearms, tails
ARMS = ("weighted", "weighted_all", "uniform")


def body_clips(seeds: Sequence[int], size: int = 480, species: Sequence[str] = SPECIES) -> dict[str, Clip]:
    """{seed: first frame as a clip} of one subject each, the species taking turns; no camera, no clutter."""
    scenes = {str(seed): random_scene(int(seed), species_name=species[k % len(species)], camera=False) for k, seed in enumerate(seeds)}
    return {item: render(scene, size, 1) for item, scene in scenes.items()}


def small_parts(clip: Clip) -> np.ndarray:
    """Pixels (h, w) of the first frame that show a foot, a forearm or a tail."""
    small = [k for k, layer in enumerate(clip.layers) if layer.object >= 0 and layer.name.endswith(SMALL)]
    return np.isin(clip.ids[0], small)


def drawn_points(clip: Clip, arm: str, n: int = 100, radius: float = RADIUS, seed=0) -> np.ndarray:
    """n points (n, 2) as (x, y) on the subject of the first frame.

    Args:
        arm: "weighted", as released (of a large mask 4096 pixels are drawn first, and counted among themselves, so that few have a
            neighbour within the radius), "weighted_all" (all pixels count) or "uniform".

    Raises:
        MotionLabError: an unknown arm, an empty mask.
    """
    mask = clip.object_mask(None)[0]
    if arm == "uniform":
        return clip.foreground_points(n, seed)
    if arm not in ARMS:
        raise MotionLabError(f"'{arm}' is no way to draw points.", fix=f"Choose one of: {', '.join(ARMS)}.")
    return distance_weighted_points(mask, n, radius, seed, LIMIT if arm == "weighted" else 0)


def point_rows(clips: dict[str, Clip], n: int = 100, radius: float = RADIUS, draws: int = 8) -> Iterator[dict]:
    """Rows {item, arm, seed, species, share, area, share_over_area} of each clip and way to draw.

    share: of the points that fall on small parts, over `draws` draws; area: of the subject's pixels; 1 is what even sampling gives.
    Clips that show none of these parts are left out.
    """
    for item, clip in clips.items():
        small, mask = small_parts(clip), clip.object_mask(None)[0]
        area = float(small.sum() / max(1, mask.sum()))
        for arm in ARMS if area else ():
            points = _several(clip, arm, n, radius, draws).astype(int)
            share = float(small[points[:, 1], points[:, 0]].mean())
            yield {"item": item, "arm": arm, "seed": 0, "species": clip.scene.actors[0].species, "share": share, "area": area,
                   "share_over_area": share / area}


def _several(clip, arm, n, radius, draws):
    """Points of several draws; where all pixels count, their weights are the same in every draw, and all are drawn at once."""
    if arm == "weighted_all":
        return drawn_points(clip, arm, n * draws, radius, 7)
    return np.concatenate([drawn_points(clip, arm, n, radius, [7, draw]) for draw in range(draws)])
