"""Pictures painted on frames, uint8 (f, h, w, 3)."""
from __future__ import annotations

import numpy as np

from motionlab.core.extras import demand_extra


def enlarge(frames: np.ndarray, side: int = 192) -> np.ndarray:
    """Repeat pixels by a whole factor so that the short side has at least `side` pixels."""
    k = max(1, -(-side // min(frames.shape[1:3])))
    return frames.repeat(k, axis=1).repeat(k, axis=2)


def flow_frames(flow: np.ndarray, sigma: float = 0.15) -> np.ndarray:
    """Flow (f, 2, h, w) as VideoJAM's flow pictures (Eq. 5), uint8 (f, h, w, 3)."""
    from motionlab.flow_rgb import flow_to_rgb

    return np.round(np.moveaxis(np.asarray(flow_to_rgb(flow, sigma=sigma)), -3, -1) * 255).astype(np.uint8)


def track_frames(frames: np.ndarray, tracks: np.ndarray, visible: np.ndarray, side: int = 192,
                 tail: int = 8) -> np.ndarray:
    """Frames with each visible point (ring) and where it was in the last `tail` frames (line), coloured by its start.
    """
    import colorsys

    import cv2

    big = enlarge(frames, side).copy()
    k = big.shape[1] / frames.shape[1]
    order = np.argsort(np.argsort(tracks[0, :, 1] * 1000 + tracks[0, :, 0])) / max(1, tracks.shape[1])
    colours = [tuple(int(255 * c) for c in colorsys.hsv_to_rgb(0.85 * o, 0.85, 1.0)) for o in order]
    places = np.nan_to_num((tracks + 0.5) * k - 0.5, nan=-99.0)
    for t in range(len(big)):
        for n, colour in enumerate(colours):
            if visible[t, n]:
                path = (places[max(0, t - tail):t + 1, n] * 16).round().astype(np.int32)[:, None]  # 1/16 pixel
                cv2.polylines(big[t], [path], False, colour, 1, cv2.LINE_AA, 4)
                centre = tuple(int(v) for v in places[t, n].round())
                cv2.circle(big[t], centre, max(2, int(k)), (20, 20, 20), -1, cv2.LINE_AA)
                cv2.circle(big[t], centre, max(1, int(k) - 1), colour, -1, cv2.LINE_AA)
    return big


def limb_frames(clip) -> np.ndarray:
    """Limb masks of all subjects in distinct colours over the greyed frames."""
    out = np.repeat(clip.frames.mean(-1, keepdims=True) * 0.35 + 150, 3, axis=-1)
    colours = np.array([[230, 97, 1], [0, 114, 178], [0, 158, 115], [240, 228, 66],
                        [204, 121, 167], [86, 180, 233], [90, 60, 30], [20, 20, 20]])
    for actor in range(len(clip.scene.actors)):
        for k, mask in enumerate(clip.limb_masks(actor).values()):
            out[mask] = colours[k % len(colours)]
    return out.astype(np.uint8)


def truth_frames(clip, tracks, visible, sigma: float = 0.05, side: int = 192) -> np.ndarray:
    """A clip beside its truth: pixels | flow picture | limbs | tracks; the last frame's flow is repeated."""
    panels = [enlarge(clip.frames, side)]
    if len(clip.frames) > 1:
        flow = flow_frames(clip.flow, sigma)
        panels.append(enlarge(np.concatenate([flow, flow[-1:]]), side))
    panels += [enlarge(limb_frames(clip), side), track_frames(clip.frames, tracks, visible, side)]
    return np.concatenate(panels, axis=2)


def mask_frames(frames: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Frames in which all but the masks (f, h, w) is paled, uint8 (f, h, w, 3)."""
    pale = 0.25 * frames + 0.75 * 255
    return np.where(masks[..., None], frames, pale).astype(np.uint8)


def tile(videos: list[np.ndarray], columns: int) -> np.ndarray:
    """Several clips of one size and length as a grid of clips."""
    rows = [np.concatenate(videos[i:i + columns], axis=2) for i in range(0, len(videos), columns)]
    width = rows[0].shape[2]
    rows = [np.pad(r, ((0, 0), (0, 0), (0, width - r.shape[2]), (0, 0)), constant_values=255) for r in rows]
    return np.concatenate(rows, axis=1)


def show(path):
    """What a notebook cell displays for a saved figure or video (embedded, so that the notebook stands alone)."""
    demand_extra("lab", "Showing figures in a notebook", "IPython")
    from IPython.display import Image, Video

    if str(path).endswith(".mp4"):
        return Video(str(path), embed=True, html_attributes="controls loop muted autoplay")
    return Image(str(path), width=900)
