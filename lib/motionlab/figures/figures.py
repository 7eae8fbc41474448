"""Figures: one claim each, uncertainty drawn, readable in greyscale and by colour-blind readers. No global state.

Functions that draw return a matplotlib `Figure`; functions that paint return uint8 frames (f, h, w, 3).
"""
from __future__ import annotations

import numpy as np

CHANGE_LABELS = {
    "identity": "itself", "dropped_limb": "one limb stops / is missing", "amplitude_half": "half amplitude",
    "amplitude_more": "1.5x amplitude", "spatial_shift": "shifted by 20 %", "speed_half": "half speed",
    "speed_double": "double speed", "jitter": "jitter, 1 px of 48", "frame_shuffle": "frames shuffled",
    "mirror": "mirrored", "time_reversal": "played backwards", "frozen": "frozen", "another_clip": "another clip",
}
METRIC_LABELS = {
    "mf_paper": "MF (paper)", "mf_release": "MF (release)", "mf_dmt": "DMT",
    "dynamic_top5": "dynamic\ndegree\n(top 5 %)", "smoothness": "smoothness\n(VBench-\nstyle)",
    "vtg_smoothness": "smoothness\n(VTG, 1-G)", "roughness": "consistency\n(AID; less\nis better)",
}
REFERENCE = ("mf_paper", "mf_release", "mf_dmt")
NO_REFERENCE = ("dynamic_top5", "smoothness", "vtg_smoothness", "roughness")
SCORE_AXES = {                                          # what a reader is told about the way a score points
    "dynamic_top5": "pixels per frame\nmore motion →", "smoothness": "score\ncalled better →",
    "vtg_smoothness": "score\ncalled better →", "roughness": "mean RMSE of neighbours\n← called better",
}
DARK, ACCENT, SOFT = "#22303c", "#c4512d", "#8fa3b0"


# ---------------------------------------------------------------------------------------------- painting
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


def tile(videos: list[np.ndarray], columns: int) -> np.ndarray:
    """Several clips of one size and length as a grid of clips."""
    rows = [np.concatenate(videos[i:i + columns], axis=2) for i in range(0, len(videos), columns)]
    width = rows[0].shape[2]
    rows = [np.pad(r, ((0, 0), (0, 0), (0, width - r.shape[2]), (0, 0)), constant_values=255) for r in rows]
    return np.concatenate(rows, axis=1)


def show(path):
    """What a notebook cell displays for a saved figure or video (embedded, so that the notebook stands alone)."""
    from IPython.display import Image, Video

    if str(path).endswith(".mp4"):
        return Video(str(path), embed=True, html_attributes="controls loop muted autoplay")
    return Image(str(path), width=900)


# ---------------------------------------------------------------------------------------------- drawing
def _figure(width, height, rows=1, columns=1, **options):
    from matplotlib.figure import Figure

    fig = Figure(figsize=(width, height), dpi=120, layout="constrained")
    axes = fig.subplots(rows, columns, **options)
    return fig, axes


def _plain(ax):
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)


def film(rows: dict[str, np.ndarray], every: int = 4):
    """Named strips of frames {label: (f, h, w, 3)}, time from left to right."""
    strips = {name: np.concatenate(list(enlarge(frames[::every], 96)), axis=1) for name, frames in rows.items()}
    tallest = max(strip.shape[0] / strip.shape[1] for strip in strips.values())
    fig, axes = _figure(9, (7.4 * tallest + 0.12) * len(strips) + 0.3, len(strips), 1, squeeze=False)
    for ax, (name, strip) in zip(axes[:, 0], strips.items()):
        ax.imshow(strip, interpolation="nearest", aspect="equal")
        ax.set_ylabel(name, rotation=0, ha="right", va="center", color=DARK)
        ax.set_xticks([]), ax.set_yticks([])
    axes[-1, 0].set_xlabel("time", color=DARK)
    return fig


def interval(values, seed: int = 0) -> tuple[float, float, float]:
    """Mean and 95 % bootstrap interval over items, NaN left out; (nan, nan, nan) where nothing is defined."""
    from motionlab.core.stats import bootstrap_interval

    values = np.asarray(values, dtype=np.float64)
    values = values[np.isfinite(values)]
    return (values.mean(), *bootstrap_interval(values, resamples=2000, seed=seed)) if len(values) else (np.nan,) * 3


def responses(table, metrics, arms=None):
    """{(arm, metric): (mean, low, high)} of the paired change against "identity".

    For metrics without a reference it is relative to the original's mean score.
    """
    out = {}
    for metric in metrics:
        wide = table.pivot_table(index="item", columns="arm", values=metric, dropna=False)
        scale = 1.0 if metric.startswith("mf_") else abs(wide["identity"].mean())
        for arm in arms or [a for a in CHANGE_LABELS if a in wide and a != "identity"]:
            out[arm, metric] = interval((wide[arm] - wide["identity"]) / scale)
    return out


def response_matrix(table, metrics=REFERENCE + NO_REFERENCE):
    """What each metric answers to each known change: mean of the change, 95 % half-width below it.

    Colour says which way a score goes, never whether that is good; the key below says so.
    """
    arms = [a for a in CHANGE_LABELS if a != "identity" and a in set(table["arm"])]
    found = responses(table, metrics, arms)
    fig, ax = _figure(9, 0.46 * len(arms) + 2.2)
    grid = np.array([[found[a, m][0] for m in metrics] for a in arms])
    image = ax.imshow(np.ma.masked_invalid(grid), cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
    ax.set_facecolor("#dddddd")                                             # shows through where nothing is defined
    for i, arm in enumerate(arms):
        for j, metric in enumerate(metrics):
            mean, low, high = found[arm, metric]
            text = "undefined" if np.isnan(mean) else f"{mean:+.2f}\n±{(high - low) / 2:.2f}"
            colour = "white" if abs(mean) > 0.55 else DARK
            ax.text(j, i, text, ha="center", va="center", fontsize=7.5, color=colour, linespacing=1.0)
    ax.set_xticks(range(len(metrics)), [METRIC_LABELS[m] for m in metrics], fontsize=8)
    ax.xaxis.tick_top()
    ax.set_yticks(range(len(arms)), [CHANGE_LABELS[a] for a in arms], fontsize=9)
    ax.axvline(sum(m in REFERENCE for m in metrics) - 0.5, color="white", lw=4)
    ax.set_xlabel("left: change of the score (scale -1 to 1)      "
                  "right: change relative to the original's score; no reference clip", fontsize=8)
    _colour_key(fig, ax, image)
    return fig


def _colour_key(fig, ax, image):
    """The way a score goes, in words beside the colours: for AID a fall is called better."""
    key = fig.colorbar(image, ax=ax, orientation="horizontal", extend="both", aspect=45, shrink=0.62, pad=0.02)
    key.set_ticks([-1, 0, 1], labels=["-1\nred: the score falls", "0\nunchanged", "+1\nblue: the score rises"])
    key.ax.tick_params(labelsize=8, length=0)
    key.set_label("Colour and sign give the direction, not good or bad: "
                  "AID's consistency is called better when it falls.", fontsize=8)


def ladder(table, metrics=REFERENCE, marked=("frozen", "another_clip")):
    """Mean score of each change with its 95 % interval, small multiples: does a metric order changes as a person would?

    Metrics with a reference share one axis; those without have each their own, with the original's score as a line.

    Args:
        table: rows {item, arm, <metric>}; a metric that is undefined for an arm is written as such.
        marked: the arms to compare, drawn as large filled marks.
    """
    arms = [a for a in CHANGE_LABELS if a in set(table["arm"])]
    shared = set(metrics) <= set(REFERENCE)
    fig, axes = _figure(9, 4.4, 1, len(metrics), sharey=True, sharex=shared, squeeze=False)
    for ax, metric in zip(axes[0], metrics):
        found = {arm: interval(table.loc[table["arm"] == arm, metric]) for arm in arms}
        for i, arm in enumerate(arms):
            _rung(ax, i, found[arm], marked.index(arm) if arm in marked else None)
        for place, style in ((0, "-"), (1, ":")) if shared else ((found["identity"][0], ":"),):
            ax.axvline(place, color=SOFT, lw=0.8, ls=style, zorder=0)
        ax.margins(x=0.12)
        ax.set_title(METRIC_LABELS[metric], fontsize=10, color=DARK)
        ax.set_xlabel(SCORE_AXES.get(metric, "score (1: the same motion)"), fontsize=8)
        _plain(ax)
    names = CHANGE_LABELS if shared else CHANGE_LABELS | {"identity": "the original"}
    axes[0, 0].set_yticks(range(len(arms)), [names[arm] for arm in arms])
    axes[0, 0].set_ylim(len(arms) - 0.5, -0.5)
    return fig


def _rung(ax, row, found, mark):
    """One arm: its interval as a bar with ends, its mean as a mark; `mark` counts the arms that stand out."""
    mean, low, high = found
    if np.isnan(mean):
        ax.text(0.5, row, "undefined", transform=ax.get_yaxis_transform(), ha="center", va="center", fontsize=8,
                color=ACCENT if mark is not None else DARK)
        return
    shape, size, colour = ("o", 4, DARK) if mark is None else ("Ds^"[mark], 7, ACCENT)
    ax.errorbar(mean, row, xerr=[[max(0, mean - low)], [max(0, high - mean)]], fmt=shape, ms=size, color=colour, lw=2, capsize=5)


def teacher_errors(table, bar: float = 0.2):
    """Error of each teacher relative to no motion, a dot per clip, mean and 95 % interval in black."""
    labels = {"dis": "DIS flow", "raft": "RAFT flow", "lucas_kanade": "Lucas-Kanade tracks",
              "dis_chained": "chained DIS tracks", "cotracker": "CoTracker3 tracks"}
    labels = {arm: label for arm, label in labels.items() if arm in set(table["arm"])}
    fig, ax = _figure(8, 0.75 * len(labels) + 0.4)
    for i, arm in enumerate(labels):
        values = table.loc[table["arm"] == arm, "relative"].to_numpy(dtype=float)
        spread = np.random.default_rng(0).uniform(-0.22, 0.22, len(values))
        ax.plot(values, i + spread, "o", ms=3, color=SOFT, alpha=0.7)
        mean, low, high = interval(values)
        ax.plot([low, high], [i, i], color="black", lw=4), ax.plot(mean, i, "D", color="black", ms=7)
    ax.axvline(bar, color=ACCENT, ls="--", lw=1.5)
    ax.text(bar, -0.45, " bar of claims T1, T2", color=ACCENT, fontsize=8, va="bottom")
    ax.axvline(1, color=DARK, lw=0.8, ls=":")
    ax.text(1, -0.45, " as bad as no motion", fontsize=8, va="bottom", color=DARK)
    ax.set_yticks(range(len(labels)), list(labels.values()))
    ax.set_ylim(len(labels) - 0.5, -0.6)
    ax.set_xlim(left=0)
    ax.set_xlabel("error / error of predicting no motion (per clip of the world)")
    _plain(ax)
    return fig


# ---------------------------------------------------------------------------------------------- arms and curves
SERIES = (DARK, ACCENT, "#3f7fb5", "#8a6bb1", "#5b8c5a", "#b59a3f")
STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))     # told apart in greyscale too


def arms(table, metrics: dict[str, str], names: dict[str, str], floor: str | None = None, bars: dict[str, float] | None = None,
         columns: int = 4):
    """Each arm's mean with its 95 % interval over items (seeds averaged first), one panel per metric, arms from top to bottom.

    Args:
        table: rows {item, arm, seed, <metric>}. metrics: column -> panel title. names: arm -> label, in order.
        floor: an arm whose mean is drawn as a dotted line: what the instruments say of real clips.
        bars: metric -> a bar that a claim asks for, drawn dashed.
    """
    rows = -(-len(metrics) // columns)
    fig, axes = _figure(2.0 + 1.9 * min(columns, len(metrics)), rows * (0.7 + 0.26 * len(names)), rows, min(columns, len(metrics)),
                        sharey=True, squeeze=False)
    per_item = table.groupby(["arm", "item"], sort=False)[list(metrics)].mean()
    for ax, (metric, title) in zip(axes.flat, metrics.items()):
        for i, arm in enumerate(names):
            _rung(ax, i, interval(per_item.loc[arm, metric]) if arm in per_item.index else (np.nan,) * 3, None)
        if floor:
            ax.axvline(interval(per_item.loc[floor, metric])[0], color=SOFT, lw=1.2, ls=":", zorder=0)
        if bars and metric in bars:
            ax.axvline(bars[metric], color=ACCENT, lw=1.2, ls="--", zorder=0)
        ax.set_title(title, fontsize=9, color=DARK)
        ax.tick_params(labelsize=8)
        ax.margins(x=0.12)
        _plain(ax)
    for ax in list(axes.flat)[len(metrics):]:
        ax.set_visible(False)
    axes[0, 0].set_yticks(range(len(names)), list(names.values()))
    axes[0, 0].set_ylim(len(names) - 0.5, -0.5)
    return fig


def seed_spread(table, metrics: dict[str, str], minus: str, names: dict[str, str]):
    """Differences of arms to the arm `minus`, paired by item and seed: a ring per seed, mean and 95 % interval over items.

    Args:
        table: rows {item, arm, seed, <metric>}. metrics: column -> panel title. names: arm -> label.
    """
    fig, axes = _figure(2.0 + 1.9 * len(metrics), 1.0 + 0.45 * len(names), 1, len(metrics), sharey=True, squeeze=False)
    for ax, (metric, title) in zip(axes[0], metrics.items()):
        wide = table.pivot_table(index=["item", "seed"], columns="arm", values=metric)
        for i, arm in enumerate(names):
            gap = (wide[arm] - wide[minus]).dropna() if {arm, minus} <= set(wide) else wide.iloc[:0, 0]
            if len(gap):
                by_seed = gap.groupby("seed").mean()
                ax.plot(by_seed, [i + 0.22] * len(by_seed), "o", mfc="none", color=SOFT, ms=6)
            _rung(ax, i, interval(gap.groupby("item").mean()) if len(gap) else (np.nan,) * 3, None)
        ax.axvline(0, color=ACCENT, lw=1, ls="--", zorder=0)
        ax.set_title(title, fontsize=9, color=DARK)
        ax.margins(x=0.15)
        _plain(ax)
    axes[0, 0].set_yticks(range(len(names)), list(names.values()))
    axes[0, 0].set_ylim(len(names) - 0.4, -0.5)
    return fig


def distances(found: dict, names: dict[str, str], xlabel: str):
    """Frechet distances {arm: Frechet} with their intervals; an open mark is the floor, two samples of real clips."""
    fig, ax = _figure(7, 0.8 + 0.4 * len(names))
    for i, arm in enumerate(names):
        _rung(ax, i, (found[arm].value, found[arm].low, found[arm].high) if arm in found else (np.nan,) * 3, None)
        if arm in found:
            ax.plot(found[arm].floor, i, "D", mfc="none", color=SOFT, ms=6)
    ax.set_yticks(range(len(names)), list(names.values()))
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xlim(left=0)
    ax.set_xlabel(xlabel)
    _plain(ax)
    return fig


def columns(table, names: dict[str, str], xlabel: str):
    """Means of several columns of the same items with their 95 % intervals, one under another: column -> label, in order."""
    fig, ax = _figure(7, 0.8 + 0.4 * len(names))
    for i, column in enumerate(names):
        _rung(ax, i, interval(table.groupby("item")[column].mean()), None)
    ax.set_yticks(range(len(names)), list(names.values()))
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xlabel(xlabel)
    _plain(ax)
    return fig


def curves(table, x: str, y: str, by: str, names: dict[str, str], xlabel: str, ylabel: str, zero: float | None = None, ax=None,
           item: str = "item"):
    """Mean of y per value of x with a 95 % band over items, one line per series; line styles differ as well as colours.

    Args:
        table: rows with columns x, y, by and item. names: value of `by` -> label, in order. zero: a level drawn dotted.
    """
    fig = None
    if ax is None:
        fig, ax = _figure(7.5, 3.8)
    for k, (name, label) in enumerate(names.items()):
        part = table[table[by] == name]
        found = [(value, *interval(rows.groupby(item)[y].mean())) for value, rows in part.groupby(x)]
        if not found:
            continue
        at, mean, low, high = np.array(found, dtype=float).T
        ax.fill_between(at, low, high, color=SERIES[k % 6], alpha=0.18, lw=0)
        ax.plot(at, mean, color=SERIES[k % 6], ls=STYLES[k % 6], lw=1.8, marker="osD^vP"[k % 6], ms=3.5, label=label)
    if zero is not None:
        ax.axhline(zero, color=SOFT, lw=1, ls=":", zorder=0)
    ax.set_xlabel(xlabel), ax.set_ylabel(ylabel)
    if (table[x].astype(float) % 1 == 0).all():      # blocks, frame offsets: there is nothing between them
        ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend(frameon=False, fontsize=8)
    _plain(ax)
    return fig


def curve_panels(table, panel: str, panels: dict, x: str, y: str, by: str, names: dict[str, str], xlabel: str, ylabel: str,
                 zero: float | None = None, bars: tuple = (), columns: int = 3):
    """`curves` for each value of the column `panel` ({value: title}), small multiples on shared axes, one legend below them.

    Args:
        bars: levels that a claim asks for, drawn dashed. columns: panels side by side, at most.
    """
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    fig, axes = _figure(3.2 * columns + 0.6, 2.9 * rows + 0.7, rows, columns, sharex=True, sharey=True, squeeze=False)
    for ax, (value, title) in zip(axes.flat, panels.items()):
        curves(table[table[panel] == value], x, y, by, names, "", "", zero, ax)
        ax.set_title(title, fontsize=10, color=DARK)
        for level in bars:
            ax.axhline(level, color=ACCENT, lw=1, ls="--", zorder=0)
        ax.get_legend().remove()
    for ax in list(axes.flat)[len(panels):]:
        ax.set_visible(False)
    for ax in axes[-1]:
        ax.set_xlabel(xlabel)
    fig.supylabel(ylabel, fontsize=10)                       # the legend lies where a label of all columns would
    handles = axes[0, 0].get_legend_handles_labels()
    fig.legend(*handles, loc="outside lower center", ncols=min(len(names), columns + 1), frameon=False, fontsize=9)
    return fig


def by_quantile(table, x: str, y: str, by: str, names: dict[str, str], xlabel: str, ylabel: str, zero: float | None = None, parts: int = 4):
    """`curves` over `parts` equally large parts of the items by their value of x, each drawn at its median."""
    import pandas as pd

    values = table.groupby("item")[x].first()
    part = pd.qcut(values.rank(method="first"), min(parts, len(values)), labels=False)
    middle = values.groupby(part).median()
    return curves(table.assign(part=table["item"].map(part).map(middle)), "part", y, by, names, xlabel, ylabel, zero)


def end_to_end(curves: dict):
    """Curves of several stages, {stage: DataFrame}, as one, minutes counted on."""
    import pandas as pd

    parts, before = [], 0.0
    for stage, curve in curves.items():
        parts.append(curve.assign(stage=stage, minutes=curve["minutes"] + before))
        before += curve["minutes"].max()
    return pd.concat(parts, ignore_index=True)


def training_curves(curve, title: str = ""):
    """A training's loss against minutes: all of it, and by noise level from noise (dark) to clean (light).

    Args:
        curve: columns minutes, loss, loss_0 ... loss_9 (`curves/<stage>.csv`), and held_out/mean where it was taken.
    """
    from matplotlib import colormaps

    fig, axes = _figure(9, 3.2, 1, 2)
    axes[0].plot(curve["minutes"], curve["loss"], color=DARK, lw=1, label="training")
    if "held_out/mean" in curve:
        seen = curve.dropna(subset=["held_out/mean"])
        axes[0].plot(seen["minutes"], seen["held_out/mean"], "D", color=ACCENT, ms=6, label="held-out clips (averaged weights)")
    for k in range(10):
        axes[1].plot(curve["minutes"], curve[f"loss_{k}"], color=colormaps["viridis"](k / 10), lw=1)
        last = curve[f"loss_{k}"].dropna()
        if k in (0, 4, 9) and len(last):
            axes[1].annotate(f" t = {k / 10 + 0.05:.2f}", (curve["minutes"].iloc[-1], last.iloc[-1]), fontsize=8, va="center")
    for ax in axes:
        ax.set_xlabel("minutes of training"), ax.set_ylabel("loss")
        ax.set_yscale("log")
        _plain(ax)
    axes[0].legend(frameon=False, fontsize=8)
    axes[0].set_title(title, fontsize=10), axes[1].set_title("by time t: noise (dark) to clean (light)", fontsize=10)
    return fig


# ---------------------------------------------------------------------------------------------- inside a video DiT
def attention_pictures(frames: np.ndarray, maps: dict[str, np.ndarray], query: tuple[int, int, int], mass: dict[str, list]):
    """Where one token looks, as DeT draws it, beside what all tokens do.

    Args:
        frames: one per latent, uint8 (f', h, w, 3). maps: label -> (f', h', w'), each scaled by its own minimum and maximum.
        query: (frame, y, x) of the token. mass: label -> (mean, low, high) per key frame, over clips.
    """
    f, (at, y, x) = len(frames), query
    fig, axes = _figure(1.25 * f + 3.2, 1.3 * (len(maps) + 1) + 0.3, len(maps) + 1, f + 1, squeeze=False,
                        width_ratios=[1] * f + [1.7])
    for k, ax in enumerate(axes[0, :f]):
        ax.imshow(frames[k], interpolation="nearest")
        ax.set_title(f"frame {k + 1}" + (" (query)" if k == at else ""), fontsize=9, color=DARK)
    h, w = next(iter(maps.values())).shape[1:]
    _box(axes[0, at], (y, x), frames.shape[1] / h, frames.shape[2] / w)
    for row, (label, values) in zip(axes[1:], maps.items()):
        for k, ax in enumerate(row[:f]):
            ax.imshow(values[k], cmap="inferno", vmin=values.min(), vmax=values.max(), interpolation="nearest")
        _box(row[at], (y, x))
        row[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9, color=DARK)
        _mass_panel(row[f], mass[label], max(high for part in mass.values() for *_, high in part), label == list(maps)[-1])
    for ax in axes[:, :f].flat:
        ax.set_xticks([]), ax.set_yticks([])
    axes[0, f].axis("off")
    axes[0, f].text(0.5, 0.02, "mass on a frame so far away,\nall tokens of all clips", ha="center", va="bottom", fontsize=8, color=DARK,
                    transform=axes[0, f].transAxes)
    return fig


def _box(ax, token, height=1.0, width=1.0):
    """The outline of a token (y, x) whose cell is height x width picture elements, light on dark."""
    from matplotlib.patches import Rectangle

    for colour, lw in (("white", 3.0), ("black", 1.2)):
        ax.add_patch(Rectangle((token[1] * width - 0.5, token[0] * height - 0.5), width, height, fill=False, ec=colour, lw=lw))


def _mass_panel(ax, found, top, last):
    mean, low, high = np.array(found, dtype=float).T
    ax.bar(np.arange(1, len(mean) + 1), mean, color=SOFT, width=0.7)
    ax.errorbar(np.arange(1, len(mean) + 1), mean, yerr=[mean - low, high - mean], fmt="none", color=DARK, lw=1.5, capsize=3)
    ax.set_ylim(0, 1.05 * top), ax.set_xticks(range(1, len(mean) + 1))
    ax.tick_params(labelsize=8, labelbottom=last)
    ax.set_xlabel("key frame" if last else "", fontsize=8)
    _plain(ax)


def key_frame_mass(table, frame: int, frames: int) -> list[tuple[float, float, float]]:
    """Mean and 95 % interval over clips of the mass on each key frame of a query in latent `frame`, from columns mass_<d>."""
    return [interval(table.groupby("item")[f"mass_{abs(k - frame)}"].mean()) for k in range(frames)]


def component_paths(paths: dict[str, dict[str, np.ndarray]], clouds: dict[str, dict[str, np.ndarray]] | None = None):
    """3-D paths of points through the three components, {panel: {name: (f', 3)}}, one panel per title on the same axes.

    Args:
        clouds: {panel: {name: (n, 3)}}, all tokens of the kind, drawn as small dots: what the one point stands for.
    """
    fig, axes = _figure(4.6 * len(paths), 4.6, 1, len(paths), squeeze=False, subplot_kw={"projection": "3d"})
    every = np.concatenate([p.reshape(-1, 3) for group in (paths, clouds or {}) for panel in group.values() for p in panel.values()])
    for ax, (title, points) in zip(axes[0], paths.items()):
        for k, (name, path) in enumerate(points.items()):
            if clouds:
                ax.scatter(*clouds[title][name].T, s=9, marker="os"[k], color=SERIES[k], alpha=0.25, lw=0, depthshade=False)
            ax.plot(*path.T, color=SERIES[k], ls=STYLES[k], lw=2, marker="os"[k], ms=6, mec="white", label=name, zorder=3)
            for t in (0, len(path) - 1):
                ax.text(*path[t], f"  {t + 1}", fontsize=10, color="black", zorder=4)
        ax.computed_zorder = False                              # else the marks of the cloud lie over the path
        ax.set_title(title, fontsize=10, color=DARK)
        for axis, (low, high) in zip("xyz", zip(every.min(0), every.max(0))):
            getattr(ax, f"set_{axis}lim")(low, high)
            getattr(ax, f"set_{axis}label")(f"component {'xyz'.index(axis) + 1}", fontsize=8, labelpad=-6)
            ax.tick_params(axis, labelsize=7, pad=-3)
    axes[0, 0].legend(frameon=False, fontsize=8, loc="upper left")
    return fig
