"""Motion transfer in figures: arms on the plane of motion and look, bodies by tier, what a setting of the branch does."""
from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from motionlab.figures.axes import figure, interval, plain, said_of, titled
from motionlab.figures.style import DARK, MARKERS, PALETTE, SOFT, STYLES, look, metric

READERS = ("0", "1")
CORNERS = ("truth", "source", "redraw", "base", "answer")      # what bounds the plane; drawn open
TIERS = ("easy", "medium", "hard")


# ---------------------------------------------------------------------------------------------- the plane
def plane(table, names: Sequence[str], paper: str = "", across: str = "m", upwards: str = "edit", says: str | None = None):
    """Arms as points by two metrics with 95 % intervals over tasks (seeds averaged first), a panel per reader; corners are open marks.

    Args:
        table: rows {item, arm, seed, <metric>_0, <metric>_1} of a transfer sweep; a metric without readers has one column. names: arms
            and corners, in order; those without rows are left out. says: the finding; None: `leader` for edit fidelity.

    On the plane of m and edit, grey lines join equal scores (their harmonic mean).
    """
    there = [name for name in names if name in set(table["arm"])]
    fig, axes = figure(9.4, 5.2, 1, 2, sharex=True, sharey=True)
    for ax, reader in zip(axes, READERS):
        columns = [_of_reader(table, one, reader) for one in (across, upwards)]
        per_item = table.groupby(["arm", "item"], sort=False)[columns].mean()
        for k, arm in enumerate(there):
            _mark(ax, per_item.loc[arm], columns, *look(arm, paper), MARKERS[k % len(MARKERS)], arm in CORNERS)
        if (across, upwards) == ("m", "edit"):
            _score_lines(ax)
        _ends(ax, across, upwards)
        ax.set_title(f"reader {reader}", fontsize=10, color=DARK)
        ax.set_xlabel(said_of(columns[0]), fontsize=9)
        plain(ax)
    axes[0].set_ylabel(said_of(_of_reader(table, upwards, "0")), fontsize=9)
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    tuned = [name for name in there if name not in CORNERS]
    return titled(fig, leader(table, tuned, paper) if says is None else says)


def _of_reader(table, name, reader):
    """The reader's column of a metric: m_0 of m, route_0_b of route_b; the metric itself where no reader has a say."""
    stem = name.removesuffix("_b")
    column = f"{stem}_{reader}_b" if stem != name else f"{name}_{reader}"
    return column if column in table else name


def _mark(ax, rows, columns, label, colour, shape, hollow):
    x, y = (interval(rows[column]) for column in columns)
    if np.isnan(x[0]) or np.isnan(y[0]):
        return
    ax.errorbar(x[0], y[0], xerr=_arms_of(x), yerr=_arms_of(y), fmt=shape, color=colour, ms=7 if hollow else 6, lw=1.2, capsize=2,
                mfc="white" if hollow else colour, mew=1.5 if hollow else 0.5, label=label)


def _arms_of(found):
    mean, low, high = found
    return [[max(0.0, mean - low)], [max(0.0, high - mean)]]


def _score_lines(ax):
    """Lines of equal harmonic mean of m and edit, both above it / 2."""
    for score in (0.2, 0.4, 0.6, 0.8):
        m = np.linspace(score / 2 + 0.01, 1.0, 80)
        edit = score * m / (2 * m - score)
        kept = edit <= 1
        ax.plot(m[kept], edit[kept], color=SOFT, lw=0.7, alpha=0.6, zorder=0)
        ax.text(1.0, score / (2 - score), f" score {score:g}", fontsize=7, color=SOFT, va="center", zorder=0)


def _ends(ax, across, upwards):
    """Where base and caption lie on m, and where the true clip does; no leak at all; the way that is better."""
    if across == "m":
        for at, said in ((0.0, "base + caption"), (1.0, "true clip")):
            ax.axvline(at, color=SOFT, ls=":", lw=1.2, zorder=0)
            ax.text(at, 0.45, f"{said} ", transform=ax.get_xaxis_transform(), rotation=90, ha="right", va="center", fontsize=7, color=DARK)
    if upwards == "leak":
        ax.axhline(0.0, color=SOFT, ls=":", lw=1.2, zorder=0)
    down = metric(upwards if upwards == "leak" else f"{upwards}_0").better == "less"
    ax.annotate("better", (0.54, 0.60 if down else 0.42), (0.42, 0.74 if down else 0.28), xycoords="axes fraction",
                textcoords="axes fraction", fontsize=8, color=DARK, arrowprops={"arrowstyle": "->", "color": DARK})


def leader(table, names: Sequence[str], paper: str = "") -> str:
    """In words: the arm of highest mean score by each reader, and its lead over the next, paired by task; and whether readers agree."""
    lines, firsts = [], []
    for reader in READERS:
        scores = table[table["arm"].isin(names)].pivot_table(index="item", columns="arm", values=f"score_{reader}").dropna()
        order = scores.mean().sort_values(ascending=False).index
        if len(order) < 2:
            continue
        firsts.append(order[0])
        lead, low, high = interval(scores[order[0]] - scores[order[1]])
        first, second = (look(arm, paper)[0] for arm in order[:2])
        lines.append(f"reader {reader}: {first} {scores[order[0]].mean():.2f}, ahead of {second} by {lead:.2f} [{low:.2f}, {high:.2f}]")
    if not lines:
        return "No two arms share a task: nothing can be compared"
    agree = "Both readers put the same arm first" if len(set(firsts)) == 1 else "The readers put different arms first"
    return f"{agree} by score (n = {len(scores)} tasks).\n" + "\n".join(lines)


def leaks(table, names: Sequence[str], paper: str = "", floor: str = "base") -> str:
    """In words: how much of the source's clutter each arm brings beyond the floor, largest first."""
    wide = table.pivot_table(index="item", columns="arm", values="leak")
    if floor not in wide:
        return ""
    more = {arm: interval((wide[arm] - wide[floor]).dropna()) for arm in names if arm in wide and arm not in CORNERS}
    told = [f"{look(arm, paper)[0]} {mean:+.2f} [{low:.2f}, {high:.2f}]"
            for arm, (mean, low, high) in sorted(more.items(), key=lambda one: -np.nan_to_num(one[1][0], nan=-9))]
    return f"Clutter of the source that comes along, beyond {look(floor, paper)[0]}:\n" + ",  ".join(told)


# ---------------------------------------------------------------------------------------------- bodies
def tiers(table, names: Sequence[str], paper: str = "", metrics: Sequence[str] = ("m_0", "m_1", "edit_0", "edit_1", "leak")):
    """Each arm's mean by tier of the body, easy to hard, with 95 % intervals over routes: a panel per metric.

    Args:
        table: rows of a transfer sweep with columns kind (tier) and route. names: arms, in order.
    """
    there = [name for name in names if name in set(table["arm"])]
    fig, axes = figure(2.0 * len(metrics) + 0.8, 3.9, 1, len(metrics), sharex=True, squeeze=False)
    for ax, column in zip(axes[0], metrics):
        for k, arm in enumerate(there):
            _over_tiers(ax, table[table["arm"] == arm], column, (k - (len(there) - 1) / 2) * 0.09, *look(arm, paper), k)
        ax.set_title(metric(column).label, fontsize=9, color=DARK)
        if column.startswith("m_") or column == "leak":
            ax.axhline(0, color=SOFT, ls=":", lw=1.2, zorder=0)                    # base and caption; no clutter
        ax.set_xticks(range(len(TIERS)), TIERS, fontsize=8)
        ax.set_ylabel(metric(column).axis().replace("\n", " "), fontsize=8, color=DARK, labelpad=1)
        ax.tick_params(axis="y", labelsize=8)
        plain(ax)
    axes[0, len(metrics) // 2].set_xlabel("body, by how much it bends (the same routes in each tier)", fontsize=9)
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=min(6, len(there)), frameon=False, fontsize=8)
    return titled(fig, by_difficulty(table, there, paper))


def _over_tiers(ax, rows, column, aside, label, colour, k):
    found = [interval(rows[rows["kind"] == tier].groupby("route")[column].mean()) for tier in TIERS]
    mean, low, high = np.array(found).T
    at = np.arange(len(TIERS)) + aside
    ax.errorbar(at, mean, yerr=[np.maximum(0, mean - low), np.maximum(0, high - mean)], color=colour, ls=STYLES[k % len(STYLES)],
                marker=MARKERS[k % len(MARKERS)], ms=4, lw=1.3, elinewidth=0.9, capsize=2, label=label)


def by_difficulty(table, names: Sequence[str], paper: str = "") -> str:
    """In words: for which arms motion falls, look rises and clutter grows from easy to hard bodies, by both readers, interval apart
    from 0."""
    wide = table[table["arm"].isin(names)].pivot_table(index=["arm", "route"], columns="kind",
                                                       values=["m_0", "m_1", "edit_0", "edit_1", "leak"])
    if not {"easy", "hard"} <= set(wide.columns.get_level_values(1)):
        return "Easy and hard bodies are not both there: nothing can be compared"

    def which(columns, sign):
        kept = [arm for arm in names if arm in wide.index
                and all(interval(sign * (wide.loc[arm][c, "hard"] - wide.loc[arm][c, "easy"]))[1] > 0 for c in columns)]
        return ", ".join(look(arm, paper)[0] for arm in kept) or "none"

    routes = wide.index.get_level_values("route").nunique()
    return (f"From easy to hard bodies (n = {routes} routes, both readers): motion falls for {which(('m_0', 'm_1'), -1)};\n"
            f"look rises for {which(('edit_0', 'edit_1'), 1)};  clutter grows for {which(('leak',), 1)}")


# ---------------------------------------------------------------------------------------------- settings of the branch
def settings(table, knobs: Mapping[str, Mapping], paper: str = "", metrics: Sequence[str] = ("score", "m", "edit"),
             asides: Mapping[str, str] | None = None, says: str = ""):
    """Metrics along the values of one or more settings, both readers as two curves: columns are settings, rows are metrics.

    Args:
        knobs: name of a setting -> {its value: the arm that has it}, in order. asides: label -> arm, drawn as single marks behind the
            last setting's values. says: the finding.

    Means with 95 % intervals over the tasks that all arms of a panel have.
    """
    fig, axes = figure(max(6.8, 1.0 + 3.1 * len(knobs) + 0.5 * len(asides or {})), 0.9 + 1.7 * len(metrics),
                       len(metrics), len(knobs), sharey="row", sharex="col", squeeze=False)
    for column, (name, arms) in zip(axes.T, knobs.items()):
        beside = (asides or {}) if name == list(knobs)[-1] else {}
        places = {str(value): arm for value, arm in arms.items()} | dict(beside)
        rows = _shared(table, places.values())
        for ax, one in zip(column, metrics):
            for k, reader in enumerate(READERS):
                _along(ax, rows, places, len(arms), f"{one}_{reader}", reader, k)
            if beside:
                ax.axvline(len(arms) - 0.5, color=SOFT, lw=0.8, ls=":", zorder=0)
            plain(ax)
        column[-1].set_xticks(range(len(places)), list(places), fontsize=8)
        column[-1].set_xlabel(name, fontsize=9)
    for ax, one in zip(axes[:, 0], metrics):
        said = metric(f"{one}_0")
        ax.set_ylabel(said.label.partition(",")[0] + "\n" + said.axis(between="\n"), fontsize=8)
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    return titled(fig, says)


def _shared(table, arms):
    """Rows of the arms that are there, on the tasks that all of them have."""
    chosen = table[table["arm"].isin(list(arms))]
    each = chosen.groupby("item")["arm"].nunique()
    return chosen[chosen["item"].isin(each.index[each == chosen["arm"].nunique()])]


def _along(ax, rows, places, joined, column, reader, k):
    colour = PALETTE[("red", "blue")[k]]
    found = np.array([interval(rows[rows["arm"] == arm].groupby("item")[column].mean()) for arm in places.values()])
    at = np.arange(len(found)) + (k - 0.5) * 0.08
    mean, low, high = found.T
    ax.errorbar(at, mean, yerr=[np.maximum(0, mean - low), np.maximum(0, high - mean)], fmt=MARKERS[k], ms=4.5, color=colour, lw=1.1,
                capsize=2, label=f"reader {reader}")
    ax.plot(at[:joined], mean[:joined], color=colour, ls=STYLES[k], lw=1.4)


def best_of(table, arms: Mapping, column: str = "score") -> dict[str, object]:
    """{reader: the value whose arm has the highest mean of this column, on the tasks that all arms have}."""
    rows = _shared(table, arms.values())
    named = {arm: value for value, arm in arms.items()}
    return {reader: named[rows.groupby("arm")[f"{column}_{reader}"].mean().idxmax()] for reader in READERS if len(rows)}


def difference(table, arm: str, minus: str, column: str = "score") -> str:
    """In words: the paired difference of two arms by each reader, with its 95 % interval, such as "+0.08 [0.01, 0.15], +0.05 [...]"."""
    told = []
    for reader in READERS:
        wide = table[table["arm"].isin([arm, minus])].pivot_table(index="item", columns="arm", values=_of_reader(table, column, reader))
        if not {arm, minus} <= set(wide):
            return "not measured"
        mean, low, high = interval((wide[arm] - wide[minus]).dropna())
        told.append(f"{mean:+.2f} [{low:.2f}, {high:.2f}]")
    return ", ".join(dict.fromkeys(told))
