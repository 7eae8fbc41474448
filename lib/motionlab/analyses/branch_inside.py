"""What a branch beside attention does to features: the same generator, clip and noise, with its branches on and off.

Three arms per clip and block: "none", the branches silent; "smoothed", those features averaged over three latent frames, which is what a
temporal kernel is said to do; "branch", what the trained branches make of it. Components are those of "none" throughout, so that the
three are seen in one basis (DeT's method card, C4 and C5: nothing forces a kernel to smooth, so it is measured).
"""
from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

import numpy as np

from motionlab.analyses.depth import third
from motionlab.analyses.features import block_features, fit_basis, smoothed, token_labels
from motionlab.analyses.over_time import fisher_ratio, high_share, lasting, moving_share, track_cosines
from motionlab.core.errors import MotionLabError
from motionlab.models.branches import branches, only
from motionlab.models.pipe import Pipe

ARMS = ("none", "smoothed", "branch")
KEYS = ("item", "arm", "seed")


def inside_rows(pipe: Pipe, clips: dict, kept: Collection[int], t: float = 0.5, seed: int = 0) -> Iterator[dict]:
    """Rows {item, arm, seed, block, depth, kept, ...} of clips {item: clip with truth} noised to t, for each arm and block.

    Args:
        pipe: with branches. kept: numbers of the blocks whose branch is on in arm "branch", and which the column `kept` marks.

    Columns: fisher (`fisher_ratio` of subject and background over three components, mean over latent frames), fisher_worst (the least
    of them); high_<kind> and moving_<kind> (`high_share`, `moving_share`), cosine_<kind> (`track_cosines`), of foreground and background.

    Raises:
        MotionLabError: a generator without branches, a block among `kept` that has none.
    """
    found = branches(pipe.denoiser)
    if not found or set(kept) - set(found):
        raise MotionLabError(f"Blocks {sorted(kept)} of '{pipe.name}' were asked for, and {sorted(found) or 'none'} have a branch.",
                             fix="Open the generator with its adapter, and name blocks that have one.")
    total = next(iter(found.values())).total
    for item, clip in clips.items():
        off, on = (_features(pipe, found, clip, item, t, chosen) for chosen in ((), kept))
        labels = token_labels(clip, cell=pipe.cell)
        for block, x in off.items():
            basis, shown = fit_basis(x), {"none": x, "smoothed": smoothed(x), "branch": on[block]}
            for arm, values in shown.items():
                row = {"item": item, "arm": arm, "seed": seed, "block": block, "depth": third(block, total), "kept": int(block in kept)}
                yield row | _measured(values, basis, labels, clip, pipe.cell)


def _features(pipe, found, clip, item, t, kept):
    with only(found, kept):
        return block_features(pipe, clip, item, t, list(found))


def _measured(x, basis, labels, clip, cell):
    ratios, cosines = fisher_ratio(basis.project(x), labels), track_cosines(x, clip, cell=cell)
    seen = np.isfinite(ratios).any()
    out = {"fisher": float(np.nanmean(ratios)) if seen else np.nan, "fisher_worst": float(np.nanmin(ratios)) if seen else np.nan}
    for value, kind in ((1, "foreground"), (0, "background")):
        tokens = lasting(labels, value)
        out |= {f"high_{kind}": high_share(x, tokens), f"moving_{kind}": moving_share(x, tokens), f"cosine_{kind}": cosines[kind]}
    return out


def per_clip(rows: Iterable[dict]):
    """One row {item, arm, seed, ...} per clip and arm, as DataFrame: means over the blocks that keep their branch. In the others it acts
    through what comes before alone."""
    import pandas as pd

    table = pd.DataFrame(rows)
    table = table[table["kept"] == 1].drop(columns=["block", "depth", "kept"])
    return table.groupby(list(KEYS), sort=False, as_index=False).mean()


def ratio(table, column: str, arm: str, over: str = "none") -> tuple[float, float, float]:
    """Mean of a column in one arm over its mean in another, and its 95 % interval; clips are resampled with both their values."""
    from motionlab.core.stats import bootstrap_interval

    wide = table[table["arm"].isin([arm, over])].pivot_table(index="item", columns="arm", values=column)
    pairs = wide.reindex(columns=[arm, over]).dropna().to_numpy(float)
    if not len(pairs) or pairs[:, 1].mean() == 0:
        return (np.nan,) * 3
    return float(pairs[:, 0].mean() / pairs[:, 1].mean()), *bootstrap_interval(pairs, resamples=2000)


def by_kind(rows: Iterable[dict], columns: Iterable[str]):
    """Rows {item, arm, seed, block, kind, value} of `inside_rows`, one per column: for drawing a panel each."""
    import pandas as pd

    return pd.DataFrame(rows).melt(["item", "arm", "seed", "block"], list(columns), "kind", "value")


def told(table, columns: dict[str, str], arms: Iterable[str] = ("branch", "smoothed")) -> str:
    """In words: each column's ratio to "none" of each arm, such as "background's change at high frequencies x 0.91 [0.88, 0.94]".

    Args:
        table: of `per_clip`. columns: column -> what it is.
    """
    names = {"branch": "branch on", "smoothed": "smoothing"}
    lines = []
    for column, what in columns.items():
        found = {arm: ratio(table, column, arm) for arm in arms}
        lines.append(f"{what}: " + ", ".join(f"{names.get(arm, arm)} x {mean:.2f} [{low:.2f}, {high:.2f}]"
                                             for arm, (mean, low, high) in found.items()))
    return f"Times what it is with the branch off (n = {table['item'].nunique()}):\n" + ";\n".join(lines)
