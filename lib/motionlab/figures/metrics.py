"""What metrics and teachers answer to known changes."""
from __future__ import annotations

import numpy as np

from motionlab.figures.axes import figure, interval, plain, row_labels, rung
from motionlab.figures.style import ACCENT, DARK, SOFT, labels, metric
from motionlab.metrics import still_changes

CHANGES = ("identity", "dropped_limb", "amplitude_half", "amplitude_more", "spatial_shift", "speed_half", "speed_double", "jitter",
           "step_lengths", "frame_shuffle", "mirror", "time_reversal", "frozen", "another_clip")      # as drawn, from top to bottom
STATIC = still_changes.ARMS                                                                    # below them: nothing moves otherwise
TEACHERS = ("dis", "raft", "lucas_kanade", "dis_chained", "cotracker")
REFERENCE = ("mf_paper", "mf_release", "mf_dmt")
NO_REFERENCE = ("dynamic_top5", "smoothness", "vtg_smoothness", "roughness")


def responses(table, metrics, arms=None):
    """{(arm, metric): (mean, low, high)} of the paired change against "identity".

    For metrics without a reference it is relative to the original's mean score.
    """
    out = {}
    for name in metrics:
        wide = table.pivot_table(index="item", columns="arm", values=name, dropna=False)
        scale = 1.0 if name.startswith("mf_") else abs(wide["identity"].mean())
        for arm in arms or [a for a in CHANGES + STATIC if a in wide and a != "identity"]:
            out[arm, name] = interval((wide[arm] - wide["identity"]) / scale)
    return out


def response_matrix(table, metrics=REFERENCE + NO_REFERENCE):
    """What each metric answers to each known change: mean of the change, 95 % half-width below it.

    Colour says which way a score goes, never whether that is good; the key below says so. Static changes, which should leave
    every cell white, lie below a line.
    """
    arms = [a for a in CHANGES + STATIC if a != "identity" and a in set(table["arm"])]
    found = responses(table, metrics, arms)
    fig, ax = figure(9, 0.46 * len(arms) + 2.2)
    grid = np.array([[found[a, m][0] for m in metrics] for a in arms])
    image = ax.imshow(np.ma.masked_invalid(grid), cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
    ax.set_facecolor("#dddddd")                                             # shows through where nothing is defined
    for i, arm in enumerate(arms):
        for j, name in enumerate(metrics):
            mean, low, high = found[arm, name]
            text = "undefined" if np.isnan(mean) else f"{mean:+.2f}\n±{(high - low) / 2:.2f}"
            colour = "white" if abs(mean) > 0.55 else DARK
            ax.text(j, i, text, ha="center", va="center", fontsize=7.5, color=colour, linespacing=1.0)
    ax.set_xticks(range(len(metrics)), [metric(m).label for m in metrics], fontsize=8)
    ax.xaxis.tick_top()
    ax.set_yticks(range(len(arms)), labels(arms), fontsize=9)
    ax.axvline(sum(m in REFERENCE for m in metrics) - 0.5, color="white", lw=4)
    if any(a in STATIC for a in arms):
        moving = sum(a in CHANGES for a in arms)
        ax.axhline(moving - 0.5, color=DARK, lw=1.5)
        ax.text(len(metrics) - 0.42, (moving + len(arms) - 1) / 2, "static: should stay white (left part: by construction)",
                rotation=270, ha="left", va="center", fontsize=8, color=DARK)
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
    arms = [a for a in CHANGES if a in set(table["arm"])]
    shared = set(metrics) <= set(REFERENCE)
    fig, axes = figure(9, 4.4, 1, len(metrics), sharey=True, sharex=shared, squeeze=False)
    for ax, name in zip(axes[0], metrics):
        found = {arm: interval(table.loc[table["arm"] == arm, name]) for arm in arms}
        for i, arm in enumerate(arms):
            rung(ax, i, found[arm], *((ACCENT, "Ds^"[marked.index(arm)], 7) if arm in marked else (DARK,)))
        for place, style in ((0, "-"), (1, ":")) if shared else ((found["identity"][0], ":"),):
            ax.axvline(place, color=SOFT, lw=0.8, ls=style, zorder=0)
        ax.margins(x=0.12)
        ax.set_title(metric(name).label, fontsize=10, color=DARK)
        ax.set_xlabel(metric(name).axis("called better", "\n"), fontsize=8)
        plain(ax)
    row_labels(axes[0, 0], labels(arms))
    return fig


def teacher_errors(table, bar: float = 0.2):
    """Error of each teacher relative to no motion, a dot per clip, mean and 95 % interval in black."""
    arms = [arm for arm in TEACHERS if arm in set(table["arm"])]
    fig, ax = figure(8, 0.75 * len(arms) + 0.4)
    for i, arm in enumerate(arms):
        values = table.loc[table["arm"] == arm, "relative"].to_numpy(dtype=float)
        spread = np.random.default_rng(0).uniform(-0.22, 0.22, len(values))
        ax.plot(values, i + spread, "o", ms=3, color=SOFT, alpha=0.7)
        mean, low, high = interval(values)
        ax.plot([low, high], [i, i], color="black", lw=4), ax.plot(mean, i, "D", color="black", ms=7)
    ax.axvline(bar, color=ACCENT, ls="--", lw=1.5)
    ax.text(bar, -0.45, " the claims' bar", color=ACCENT, fontsize=8, va="bottom")
    ax.axvline(1, color=DARK, lw=0.8, ls=":")
    ax.text(1, -0.45, " as bad as no motion", fontsize=8, va="bottom", color=DARK)
    row_labels(ax, labels(arms))
    ax.set_ylim(top=-0.6)
    ax.set_xlim(left=0)
    ax.set_xlabel("error / error of predicting no motion (per clip of the world)")
    plain(ax)
    return fig
