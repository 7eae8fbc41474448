"""Inside a video DiT: attention maps and components of features."""
from __future__ import annotations

import numpy as np

from motionlab.figures.axes import figure, interval, plain
from motionlab.figures.style import DARK, SOFT, STYLES, look


def attention_pictures(frames: np.ndarray, maps: dict[str, np.ndarray], query: tuple[int, int, int], mass: dict[str, list]):
    """Where one token looks, as DeT draws it, beside what all tokens do.

    Args:
        frames: one per latent, uint8 (f', h, w, 3). maps: label -> (f', h', w'), each scaled by its own minimum and maximum.
        query: (frame, y, x) of the token. mass: label -> (mean, low, high) per key frame, over clips.
    """
    f, (at, y, x) = len(frames), query
    fig, axes = figure(1.25 * f + 3.2, 1.3 * (len(maps) + 1) + 0.3, len(maps) + 1, f + 1, squeeze=False,
                        width_ratios=[1] * f + [1.7])
    for k, ax in enumerate(axes[0, :f]):
        ax.imshow(frames[k], interpolation="nearest")
        ax.set_title(f"frame {k + 1}" + (" (query)" if k == at else ""), fontsize=9, color=DARK)
    h, w = next(iter(maps.values())).shape[1:]
    outline(axes[0, at], (y, x), frames.shape[1] / h, frames.shape[2] / w)
    for row, (label, values) in zip(axes[1:], maps.items()):
        for k, ax in enumerate(row[:f]):
            ax.imshow(values[k], cmap="inferno", vmin=values.min(), vmax=values.max(), interpolation="nearest")
        outline(row[at], (y, x))
        row[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9, color=DARK)
        _mass_panel(row[f], mass[label], max(high for part in mass.values() for *_, high in part), label == list(maps)[-1])
    for ax in axes[:, :f].flat:
        ax.set_xticks([]), ax.set_yticks([])
    axes[0, f].axis("off")
    axes[0, f].text(0.5, 0.02, "mass on a frame so far away,\nall tokens of all clips", ha="center", va="bottom", fontsize=8, color=DARK,
                    transform=axes[0, f].transAxes)
    return fig


def outline(ax, token, height=1.0, width=1.0, cells=1):
    """The outline of a token (y, x), or of a square of cells from it on, whose cell is height x width picture elements, light on dark."""
    from matplotlib.patches import Rectangle

    for colour, lw in (("white", 3.0), ("black", 1.2)):
        ax.add_patch(Rectangle((token[1] * width - 0.5, token[0] * height - 0.5), cells * width, cells * height,
                               fill=False, ec=colour, lw=lw))


def _mass_panel(ax, found, top, last):
    mean, low, high = np.array(found, dtype=float).T
    ax.bar(np.arange(1, len(mean) + 1), mean, color=SOFT, width=0.7)
    ax.errorbar(np.arange(1, len(mean) + 1), mean, yerr=[mean - low, high - mean], fmt="none", color=DARK, lw=1.5, capsize=3)
    ax.set_ylim(0, 1.05 * top), ax.set_xticks(range(1, len(mean) + 1))
    ax.tick_params(labelsize=8, labelbottom=last)
    ax.set_xlabel("key frame" if last else "", fontsize=8)
    plain(ax)


def key_frame_mass(table, frame: int, frames: int) -> list[tuple[float, float, float]]:
    """Mean and 95 % interval over clips of the mass on each key frame of a query in latent `frame`, from columns mass_<d>."""
    return [interval(table.groupby("item")[f"mass_{abs(k - frame)}"].mean()) for k in range(frames)]


def component_paths(paths: dict[str, dict[str, np.ndarray]], clouds: dict[str, dict[str, np.ndarray]] | None = None):
    """3-D paths of points through the three components, {panel: {name: (f', 3)}}, one panel per title on the same axes.

    Args:
        clouds: {panel: {name: (n, 3)}}, all tokens of the kind, drawn as small dots: what the one point stands for.
    """
    fig, axes = figure(4.6 * len(paths), 4.6, 1, len(paths), squeeze=False, subplot_kw={"projection": "3d"})
    every = np.concatenate([p.reshape(-1, 3) for group in (paths, clouds or {}) for panel in group.values() for p in panel.values()])
    for ax, (title, points) in zip(axes[0], paths.items()):
        for k, (name, path) in enumerate(points.items()):
            label, colour = look(name, column="point")
            if clouds:
                ax.scatter(*clouds[title][name].T, s=9, marker="os"[k], color=colour, alpha=0.25, lw=0, depthshade=False)
            ax.plot(*path.T, color=colour, ls=STYLES[k], lw=2, marker="os"[k], ms=6, mec="white", label=label, zorder=3)
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
