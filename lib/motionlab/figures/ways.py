"""Ways of a subject: drawn on its clips, and against time beside the way that was to be followed."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from motionlab.figures.axes import figure, interval, plain, row_labels, rung, titled
from motionlab.figures.painting import enlarge
from motionlab.figures.style import DARK, PALETTE, SOFT, labels, look


@dataclass(frozen=True)
class Seen:
    """A clip and where its subject's middle is. frames: uint8 (f, h, w, 3); way: (f, 2) in pixels, NaN where nothing is seen; score: how
    near the way is to the source's (`metrics.transfer.route`), NaN for the source itself."""

    frames: np.ndarray
    way: np.ndarray
    score: float = float("nan")


def ways(source: Seen, clips: Mapping[str, Seen], paper: str = "", says: str = "", every: int = 4):
    """The source and the clips that were to move as it does, a row each: frames with the way so far drawn on them, then the way along x
    against time beside the source's (dotted), both less their means.

    Args:
        clips: arm, or any text -> what is seen of it. says: the finding.
    """
    rows = {"the source": source, **clips}
    fig, axes = figure(9.6, 0.6 + 1.15 * len(rows), len(rows), 2, squeeze=False, width_ratios=[3.1, 1])
    top = 1.1 * max(np.nanmax(np.abs(_less_mean(one.way)), initial=1.0) for one in rows.values())
    for (strip, panel), (name, one) in zip(axes, rows.items()):
        label, colour = (name, DARK) if one is source else look(name, paper)
        strip.imshow(np.concatenate(list(way_frames(one.frames, one.way, colour)[::every]), axis=1), interpolation="nearest")
        strip.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9, color=DARK)
        strip.set_xticks([]), strip.set_yticks([])
        panel.plot(_less_mean(source.way), color=DARK, ls=":", lw=1.4)
        if one is not source:
            panel.plot(_less_mean(one.way), color=colour, lw=1.8)
        said = "nothing is seen" if np.isnan(one.way).all() else "" if np.isnan(one.score) else f"way {one.score:.2f}"
        panel.text(0.02, 0.96, said, transform=panel.transAxes, va="top", fontsize=8, color=DARK)
        panel.axhline(0, color=SOFT, lw=0.7, zorder=0)
        panel.set_ylim(-top, top)
        panel.tick_params(labelsize=7, labelbottom=one is list(rows.values())[-1])
        panel.set_ylabel("px", fontsize=7, labelpad=0)
        plain(panel)
    axes[-1, 0].set_xlabel("time", fontsize=9), axes[-1, 1].set_xlabel("frame", fontsize=8)
    axes[0, 1].set_title("x less its mean; dotted: the source's", fontsize=8, color=DARK)
    return titled(fig, says)


def _less_mean(way):
    x = np.asarray(way, float)[:, 0]
    return x - np.nanmean(x) if np.isfinite(x).any() else x


def way_frames(frames: np.ndarray, way: np.ndarray, colour: str = PALETTE["red"], side: int = 144) -> np.ndarray:
    """Frames, enlarged, with the way (f, 2) so far drawn as a line and where it has come to as a ring; nothing where it is NaN."""
    import cv2

    big = enlarge(frames, side).copy()
    k = big.shape[1] / frames.shape[1]
    ink = tuple(int(colour[i:i + 2], 16) for i in (1, 3, 5))
    places = (np.asarray(way, float) + 0.5) * k - 0.5
    for t, frame in enumerate(big):
        seen = places[:t + 1][np.isfinite(places[:t + 1]).all(-1)]
        if len(seen):
            line = (seen * 16).round().astype(np.int32)[:, None]                                      # 1/16 pixel
            for width, tint in ((4, (255, 255, 255)), (2, ink)):
                cv2.polylines(frame, [line], False, tint, width, cv2.LINE_AA, 4)
            centre = tuple(int(v) for v in seen[-1].round())
            cv2.circle(frame, centre, 5, (255, 255, 255), -1, cv2.LINE_AA)
            cv2.circle(frame, centre, 4, ink, -1, cv2.LINE_AA)
    return big


def sampled_points(pictures: Mapping[str, tuple[np.ndarray, ...]], table, paper: str = ""):
    """Points drawn on a body by each way to draw them, and the share that small parts get of them over their share of the area.

    Args:
        pictures: way to draw -> (picture (h, w, 3), small parts (h, w) bool, whole body (h, w) bool, points (n, 2)).
        table: rows of `analyses.point_sampling`.
    """
    arms = list(pictures)
    fig, axes = figure(3.0 * len(arms) + 3.2, 4.3, 1, len(arms) + 1, width_ratios=[1] * len(arms) + [1.1])
    for ax, (arm, (picture, small, body, points)) in zip(axes, pictures.items()):
        tinted = np.where(small[..., None], 0.4 * picture + 153, 0.55 * picture).astype(np.uint8)
        on = small[points[:, 1].astype(int), points[:, 0].astype(int)]
        ax.imshow(tinted)
        for mine, shade in ((~on, "white"), (on, PALETTE["red"])):
            ax.scatter(*points[mine].T, s=11, color=shade, edgecolors="black", linewidths=0.4)
        label = look(arm, paper)[0]
        area = small.sum() / max(1, body.sum())
        ax.set_title(f"{label}: {on.mean():.0%} on small parts\n(they are {area:.0%} of its area)", fontsize=9, color=DARK)
        ax.set_xticks([]), ax.set_yticks([])
    found = {arm: interval(table[table["arm"] == arm].groupby("item")["share_over_area"].mean()) for arm in arms}
    for row, arm in enumerate(arms):
        rung(axes[-1], row, found[arm], look(arm, paper)[1])
    axes[-1].axvline(1, color=SOFT, ls=":", lw=1.2, zorder=0)
    row_labels(axes[-1], labels(arms, paper))
    axes[-1].set_xlabel("points on small parts / their area   more →\n(dotted: even sampling)", fontsize=8)
    plain(axes[-1])
    told = ", ".join(f"{look(arm, paper)[0]} {mean:.2f} [{low:.2f}, {high:.2f}]" for arm, (mean, low, high) in found.items())
    return titled(fig, f"Points on feet, forearms and tails over their area (n = {table['item'].nunique()} bodies):\n{told}")
