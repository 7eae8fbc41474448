"""The instruments' own figure: answers to damage by its dose."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from motionlab.core.errors import MotionLabError
from motionlab.figures.axes import figure, interval, plain
from motionlab.figures.style import DARK, MARKERS, PALETTE, STYLES

# Head of a panel, unit of its dose, and what a dose of 1 is in that unit.
DAMAGES = {"late": ("one limb late", "lag in degrees", 180), "stuck": ("one limb stuck", "% of the clip", 100),
           "gait": ("another species' gait", "% of it", 100), "warp": ("time runs unevenly", "% of full swing", 100),
           "stutter": ("frames held", "% of every other frame", 100), "shuffle": ("frames shuffled", "% of the frames", 100)}
COLOURS = {"structure_0": "red", "structure_1": "ochre", "move_ok_0": "blue", "move_ok_1": "violet"}
ROWS = (("structure_0", "structure_1"), ("move_ok_0", "move_ok_1"))


def dose_response(table, damages: Sequence[str] | None = None, subject: str = ""):
    """Answers to damage against its dose: a column of panels per damage, structure above, motion below, both readers in each.

    Mean over clips with the 95 % interval of the paired difference to the undamaged clips, whose level is dotted. The title says
    which damage both readers see.

    Args:
        table: rows of `experiments.motion_dose` of one source. damages: in order; None takes those of the table.
        subject: what was damaged, for the title, such as "reconstructions".

    Raises:
        MotionLabError: no undamaged rows.
    """
    given = [d for d in DAMAGES if d in set(table["damage"])] if damages is None else list(damages)
    clean = table[table["arm"] == "clean_0"].set_index("item")
    if clean.empty:
        raise MotionLabError("There are no undamaged clips to compare with.", fix="Keep the rows of the arm 'clean_0'.")
    fig, axes = figure(1.2 + 2.3 * len(given), 5.6, 2, len(given), sharex="col", sharey="row", squeeze=False)
    for j, damage in enumerate(given):
        head, unit, full = DAMAGES[damage]
        part = table[table["damage"] == damage]
        for ax, columns in zip(axes[:, j], ROWS):
            for k, column in enumerate(columns):
                _curve(ax, part, clean, column, full, k)
            plain(ax)
        axes[0, j].set_title(head, fontsize=9, color=DARK)
        axes[1, j].set_xlabel(unit, fontsize=8, color=DARK)
        axes[1, j].set_xticks([0, full / 2, full])
    for ax, said in zip(axes[:, 0], ("structure error\nworse →", "motion as asked, share\n← worse")):
        ax.set_ylabel(said, fontsize=9, color=DARK)
    _scales(axes[0, 0], axes[1, 0])
    handles, names = (sum(parts, []) for parts in zip(*(ax.get_legend_handles_labels() for ax in axes[:, 0])))
    fig.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False, fontsize=8)
    fig.suptitle(finding(table, given, subject), fontsize=10, color=DARK)
    return fig


def _scales(structure, motion):
    """Structure on a log scale, since shuffling breaks ten times as much as a gait does; what the dotted lines are, once."""
    from matplotlib.ticker import LogLocator

    structure.set_yscale("log", nonpositive="clip")
    structure.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    structure.yaxis.set_major_formatter("{x:g}")
    structure.yaxis.set_minor_formatter("")
    motion.set_ylim(-0.04, 1.14)
    motion.set_yticks([0, 0.5, 1])
    for ax, said, side in ((structure, "undamaged", "top"), (motion, "undamaged", "bottom")):
        level = next(line for line in ax.lines if line.get_linestyle() == ":").get_ydata()[0]
        ax.annotate(said, (0.98, level), (0, -2 if side == "top" else 1), xycoords=ax.get_yaxis_transform(), ha="right", va=side,
                    textcoords="offset points", fontsize=8, color=DARK)


def _curve(ax, part, clean, column, full, k):
    colour = PALETTE[COLOURS[column]]
    level, found = clean[column].mean(), [(0.0, 0.0, 0.0, 0.0)]
    for dose, rows in part.groupby("dose"):
        found.append((dose, *interval((rows.set_index("item")[column] - clean[column]).dropna())))
    at, mean, low, high = np.array(found).T
    ax.fill_between(at * full, level + low, level + high, color=colour, alpha=0.18, lw=0)
    ax.plot(at * full, level + mean, color=colour, ls=STYLES[k], marker=MARKERS[k], ms=3.5, lw=1.6, label=f"reader {column[-1]}, "
            + ("structure" if column.startswith("structure") else "motion"))
    ax.axhline(level, color=colour, lw=1, ls=":", zorder=0)


def finding(table, damages: Sequence[str], subject: str = "") -> str:
    """In words: the damages that raise structure for both readers at full dose, those that lower motion, and those that do neither."""
    clean = table[table["arm"] == "clean_0"].set_index("item")

    def seen(damage, columns, sign):
        rows = table[table["damage"] == damage]
        rows = rows[rows["dose"] == rows["dose"].max()].set_index("item")
        return all(interval(sign * (rows[c] - clean[c]).dropna())[1] > 0 for c in columns)

    def told(names):
        return ", ".join(DAMAGES[name][0] for name in names) or "nothing"

    body, motion = ([d for d in damages if seen(d, *asked)] for asked in ((ROWS[0], 1), (ROWS[1], -1)))
    neither = [d for d in damages if d not in body + motion]
    where = f"{subject}, n = {len(clean)}. " if subject else ""
    return (f"{where}Both readers' structure answers: {told(body)}.\nTheir motion as asked answers: {told(motion)}."
            f" Seen by both in neither: {told(neither)}.")
