"""Transitions in figures: methods on the plane of edge and jump, edges frame by frame, ours beside what papers printed."""
from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np

from motionlab.figures.axes import figure, interval, plain, said_of, titled
from motionlab.figures.style import DARK, MARKERS, PALETTE, SOFT, STYLES, Metric, look, metric

TRUE = ("truth", "blurred", "reconstruction")                  # what bounds the plane; drawn open
FAKES = ("cross_fade", "cut", "frozen", "shuffled", "latent_slerp")
EVEN = 1 / 8                                                   # the jump of nine evenly spaced frames


def transition_plane(table, names: Sequence[str], paper: str = "", says: str | None = None):
    """Methods as points, how crisp the middle is against how large the largest step, with 95 % intervals over pairs (seeds averaged
    first); true clips and fakes are open marks.

    Args:
        table: rows of `metrics.transitions` of one task. names: arms in order; those without rows, or without a value, are left out.
        says: the finding; None: `nearest_to_truth`.
    """
    per_item = table.groupby(["arm", "item"], sort=False)[["jump", "edge"]].mean()
    there = [name for name in names if name in per_item.index and per_item.loc[name].notna().any().all()]
    fig, ax = figure(7.6, 5.6)
    for k, name in enumerate(there):
        (label, colour), rows = look(name, paper), per_item.loc[name]
        x, y, hollow = interval(rows["jump"]), interval(rows["edge"]), name in (*TRUE, *FAKES)
        ax.errorbar(x[0], y[0], xerr=_reach(x), yerr=_reach(y), fmt=MARKERS[k % len(MARKERS)], color=colour, ms=8 if hollow else 6, lw=1.1,
                    capsize=2, mfc="white" if hollow else colour, mew=1.5 if hollow else 0.5, label=label)
    ax.axvline(EVEN, color=SOFT, ls=":", lw=1.2, zorder=0)
    ax.axhline(1.0, color=SOFT, ls=":", lw=1.2, zorder=0)
    for at, said, where in (((EVEN, 0.02), " even steps", "left"), ((1.0, 0.02), "a cut ", "right")):
        ax.text(*at, said, transform=ax.get_xaxis_transform(), ha=where, va="bottom", fontsize=8, color=DARK)
    ax.axhspan(0.45, 0.65, color=SOFT, alpha=0.15, lw=0, zorder=0)
    ax.text(0.99, 0.55, "two pictures at once", transform=ax.get_yaxis_transform(), ha="right", va="center", fontsize=8, color=DARK)
    ax.annotate("better", (0.42, 0.88), (0.54, 0.74), xycoords="axes fraction", textcoords="axes fraction", fontsize=8, color=DARK,
                arrowprops={"arrowstyle": "->", "color": DARK})
    ax.set_xlim(0.1, max(1.03, ax.get_xlim()[1])), ax.set_ylim(bottom=min(0.4, ax.get_ylim()[0]))
    ax.set_xlabel(said_of("jump"), fontsize=9), ax.set_ylabel(said_of("edge"), fontsize=9)
    plain(ax)
    fig.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    made = [name for name in there if name not in (*TRUE, *FAKES)]
    return titled(fig, nearest_to_truth(per_item, made, paper) if says is None else says)


def _reach(found):
    mean, low, high = found
    return [[max(0.0, mean - low)], [max(0.0, high - mean)]]


def nearest_to_truth(per_item, names: Sequence[str], paper: str = "") -> str:
    """In words: which method's middle is crispest, which one's way is most even, by how much over the next, paired by pair."""
    told = []
    for column, better in (("edge", "crispest middle"), ("jump", "most even way")):
        wide = per_item[column].unstack("arm").reindex(columns=[name for name in names if name in per_item.index]).dropna()
        if wide.shape[1] < 2 or len(wide) < 2:
            continue
        order = wide.mean().sort_values(ascending=metric(column).better == "less").index
        gap = interval(wide[order[0]] - wide[order[1]])
        first, second = (look(arm, paper)[0].replace("\n", " ") for arm in order[:2])
        sure = "" if gap[1] > 0 or gap[2] < 0 else ", not apart"
        told.append(f"{better} (n = {len(wide)}): {first} {wide[order[0]].mean():.2f}, then {second}, {gap[0]:+.2f} "
                    f"[{gap[1]:+.2f}, {gap[2]:+.2f}]{sure}")
    return "\n".join(one[0].upper() + one[1:] for one in told) if told else "No two methods share a pair: nothing can be compared"


def contrasts(table, asked: Sequence[tuple[str, str, str, str]], paper: str = "") -> str:
    """In words: differences of arms, paired by pair (seeds averaged first), with 95 % intervals; what is not there is left out.

    Args:
        asked: (arm, minus, column, task).
    """
    told = []
    for arm, minus, column, task in asked:
        rows = table[table["arm"].isin([arm, minus]) & (table["task"] == task)]
        wide = rows.pivot_table(index="item", columns="arm", values=column) if len(rows) else rows
        if {arm, minus} <= set(wide.columns):
            gap = interval((wide[arm] - wide[minus]).dropna())
            first, second = (look(one, paper)[0].replace("\n", " ") for one in (arm, minus))
            what = metric(column).label.replace("\n", " ")
            told.append(f"{what}, {first} − {second}: {gap[0]:+.2f} [{gap[1]:+.2f}, {gap[2]:+.2f}], n = {len(wide.dropna())} of {task}")
    return "\n".join(told) if told else "None of these arms share a pair"


# ---------------------------------------------------------------------------------------------- edges over the frames
def edges_by_frame(table, names: Sequence[str], paper: str = "", says: str | None = None):
    """Strength of each frame's edges as a share of the ends', mean and 95 % band over pairs, a curve per arm.

    Args:
        table: rows of `metrics.transitions` with edge_f0, edge_f1, ...
    """
    columns = sorted((c for c in table.columns if c.startswith("edge_f") and c != "edge_fall"), key=lambda c: int(c[6:]))
    fig, ax = figure(7.4, 4.2)
    for k, name in enumerate(n for n in names if n in set(table["arm"])):
        rows = table[table["arm"] == name].groupby("item")[columns].mean()
        found = np.array([interval(rows[column]) for column in columns])
        if np.isnan(found).all():
            continue
        label, colour = look(name, paper)
        ax.fill_between(range(len(columns)), found[:, 1], found[:, 2], color=colour, alpha=0.18, lw=0)
        ax.plot(found[:, 0], color=colour, ls=STYLES[k % 6], marker=MARKERS[k % 6], ms=3.5, lw=1.7, label=label)
    ax.axhline(1.0, color=SOFT, ls=":", lw=1.2, zorder=0)
    ax.text(0.99, 1.0, "as crisp as the ends", transform=ax.get_yaxis_transform(), fontsize=8, color=DARK, ha="right", va="bottom")
    ax.set_xlabel("frame"), ax.set_ylabel("edges, share of the ends'\nbetter →", fontsize=9)
    ax.legend(frameon=False, fontsize=8)
    plain(ax)
    return titled(fig, falls(table, names, paper) if says is None else says)


def falls(table, names: Sequence[str], paper: str = "") -> str:
    """In words: how much edge each arm loses per frame, with its interval."""
    told = []
    for name in names:
        rows = table[table["arm"] == name]
        found = interval(rows.groupby("item")["edge_fall"].mean()) if len(rows) else (np.nan,) * 3
        if not np.isnan(found[0]):
            told.append(f"{look(name, paper)[0]} {found[0]:+.3f} [{found[1]:+.3f}, {found[2]:+.3f}]".replace("\n", " "))
    return "Edge lost per frame: " + ",  ".join(told) if told else "No arm shows edges"


def frame_maps(maps: Mapping[str, np.ndarray], says: str = ""):
    """Attention from frame to frame, (f, f) each by name: rows are queries, columns keys, one scale of colours for all."""
    fig, axes = figure(2.9 * len(maps) + 0.8, 3.4, 1, len(maps), squeeze=False)
    low, top = min(float(one.min()) for one in maps.values()), max(float(one.max()) for one in maps.values())
    for ax, (name, one) in zip(axes[0], maps.items()):
        drawn = ax.imshow(one, cmap="Greys", vmin=low, vmax=top, interpolation="nearest")
        ax.set_title(name, fontsize=9, color=DARK)
        ax.set_xlabel("frame that is looked at", fontsize=8)
        ax.tick_params(labelsize=7)
    axes[0, 0].set_ylabel("frame that looks", fontsize=8)
    fig.colorbar(drawn, ax=list(axes[0]), shrink=0.8).set_label("share of its attention", fontsize=8)
    return titled(fig, says)


# ---------------------------------------------------------------------------------------------- ours beside what was printed
def beside_printed(printed: Sequence[Mapping], table, metrics: Mapping[str, tuple[str, str]], paper: str = "", says: str = ""):
    """A paper's table beside ours, a panel per column of it: its cells as grey diamonds, ours as means with 95 % intervals, each on its own
    axis, since only the order can be compared; doubtful cells are open.

    Args:
        printed: {column, method, value, arm (ours in its place, "" for none), doubt (why, "" for none)}.
        metrics: {column of the paper's table: (our metric, our task)}.
    """
    fig, axes = figure(3.3 * len(metrics) + 1.6, 0.9 + 0.36 * max(sum(c["column"] == name for c in printed) for name in metrics), 1,
                       len(metrics), squeeze=False)
    for ax, (column, (name, task)) in zip(axes[0], metrics.items()):
        cells = [cell for cell in printed if cell["column"] == column]
        ours = ax.twiny()
        for row, cell in enumerate(cells):
            ax.plot(cell["value"], row - 0.14, "D", color=SOFT, ms=6, mfc="white" if cell["doubt"] else SOFT)
            rows = table[(table["arm"] == cell["arm"]) & (table["task"] == task)]
            found = interval(rows.groupby("item")[name].mean()) if cell["arm"] and len(rows) else (np.nan,) * 3
            if np.isnan(found[0]):
                said = "no rows" if cell["arm"] else "not built"
                ours.text(0.98, row + 0.14, said, transform=ours.get_yaxis_transform(), ha="right", va="center", fontsize=7,
                          color=DARK)
            else:
                colour = look(cell["arm"], paper)[1]
                ours.errorbar(found[0], row + 0.14, xerr=_reach(found), fmt="o", ms=4.5, color=colour, capsize=2, lw=1.2)
        ax.set_yticks(range(len(cells)), [cell["method"] for cell in cells], fontsize=8)
        ax.set_ylim(len(cells) - 0.4, -0.6)
        ax.set_xlabel(f"printed: {column}   {Metric('', '', metric(name).better).axis()}", fontsize=8, color=PALETTE["grey"])
        ours.set_xlabel(textwrap.fill(f"ours: {metric(name).label}".replace("\n", " ") + f", on {task}", 44), fontsize=8, color=DARK)
        ax.margins(x=0.16), ours.margins(x=0.16)
        for one in (ax, ours):
            one.tick_params(axis="x", labelsize=7)
    return titled(fig, says or same_order(printed, table, metrics))


def same_order(printed: Sequence[Mapping], table, metrics: Mapping[str, tuple[str, str]]) -> str:
    """In words: of the pairs of methods that are both printed and built, how many stand in the same order here, by column."""
    told = []
    for column, (name, task) in metrics.items():
        cells = [(cell["value"], table[(table["arm"] == cell["arm"]) & (table["task"] == task)][name].mean()) for cell in printed
                 if cell["column"] == column and cell["arm"]]
        cells = [cell for cell in cells if np.isfinite(cell[1])]
        pairs = [(a[0] - b[0]) * (a[1] - b[1]) for k, a in enumerate(cells) for b in cells[:k] if a[0] != b[0]]
        if pairs:
            told.append(f"{column}: {sum(value > 0 for value in pairs)} of {len(pairs)}")
    return "Pairs of methods in the printed order: " + ",  ".join(told) if told else "No two printed methods are built"
