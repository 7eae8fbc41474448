"""Rows of a sweep of distilled generators, put together as they are judged: seeds of an arm under one name, by class, by speed, over t.

Names of arms say what they are: `full_seeds`, further seeds of `full`; `full_in@prompts=animals`, the arm on another set of prompts;
`full_features` and `full_loss`, the same training measured otherwise.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from motionlab.core.errors import MotionLabError
from motionlab.experiments.contrasts import flagged
from motionlab.metrics.edges import terciles

SEEDS, IN, FEATURES, LOSS = "_seeds", "_in@prompts=", "_features", "_loss"
MAIN = "people"          # what the set of all arms shows
WHOSE = ("item", "arm", "seed")
JUDGED = ("structure_0", "structure_1", "jump_0", "jump_1", "length_variation_0", "length_variation_1", "move_ok", "look_ok", "m1", "m2",
          "m3", "dynamic_degree", "speed", "edge", "broken", "broken_extra_part", "third")
BY_CLASS = ("structure_0", "structure_1", "move_ok", "look_ok", "class")


def one_name(table):
    """The table with the further seeds of an arm under its own name."""
    return table.assign(arm=table["arm"].str.removesuffix(SEEDS))


def renamed(table, rows: Mapping[str, str]):
    """Rows of some arms under shorter names, {name: arm of the table}; an arm that was not measured is left out."""
    names = {arm: name for name, arm in rows.items()}
    kept = table[table["arm"].isin(names)]
    return kept.assign(arm=kept["arm"].map(names))


def of_teachers(table, names: Sequence[str]):
    """Rows of a sweep of teachers, arms "<kind>@teacher=<name>" under the teacher's name, with hit_<kind> beside hit: one column a kind of
    clip, undefined elsewhere."""
    parts = table["arm"].str.extract(r"^(?P<clips>\w+)@teacher=(?P<teacher>\w+)$")
    rows = table.assign(arm=parts["teacher"], clips=parts["clips"])
    rows = rows[rows["arm"].isin(names)]
    return rows.assign(**{f"hit_{kind}": rows["hit"].where(rows["clips"] == kind) for kind in rows["clips"].unique()})


def judged(sweep, floor: str = "reconstruction"):
    """Rows of sampled (or real) clips of the main set, all seeds of an arm together, of their columns `JUDGED`: broken is
    `contrasts.flagged`'s; third: 0, 1, 2, the tercile of the floor's speed that the prompt lies in (-1 where it is not known), which no
    arm decides.

    Raises:
        MotionLabError: the floor has no rows.
    """
    clips = one_name(sweep[sweep["structure_0"].notna() & ~sweep["arm"].str.contains(IN, regex=False)])
    speed = clips[clips["arm"] == floor].groupby("item")["speed"].first()
    if speed.empty:
        raise MotionLabError(f"There are no rows of arm '{floor}'.", fix="Measure it first: all else is told by it.")
    third = dict(zip(speed.index, terciles(speed)))
    return _of(flagged(clips, floor).assign(third=clips["item"].map(third).fillna(-1).astype(int)), JUDGED)


def by_class(sweep):
    """Rows of sampled clips of all sets with the column class: `MAIN`, or the set's name; arms under the name that they have there."""
    clips = one_name(sweep[sweep["structure_0"].notna()])
    parts = clips["arm"].str.split(IN, n=1, expand=True, regex=False).reindex(columns=[0, 1])
    return _of(clips.assign(arm=parts[0], **{"class": parts[1].fillna(MAIN)}), BY_CLASS)


def _of(table, columns):
    """The columns that are judged, as far as they are there: a sweep has a hundred, and what is judged is committed."""
    return table[[c for c in (*WHOSE, *columns) if c in table]]


def by_part(parts: Mapping, arm: str, minus: str, columns: Sequence[str]):
    """Rows {item, arm: the part's name, seed 0, <column>} of paired differences arm - minus by prompt, seeds averaged first; the two may
    have different seeds. A part that lacks either has no rows."""
    import pandas as pd

    out = [pd.DataFrame(columns=["item", "arm", "seed", *columns])]
    for name, table in parts.items():
        means = table[table["arm"].isin([arm, minus])].groupby(["arm", "item"])[list(columns)].mean()
        if {arm, minus} <= set(means.index.get_level_values(0)):
            gap = (means.loc[arm] - means.loc[minus]).dropna(how="all").reset_index()
            out.append(gap.assign(arm=name, seed=0))
    return pd.concat(out[1:] or out, ignore_index=True)


def over_times(sweep, columns: Sequence[str] = ("hit", "still_kept", "kl", "entropy", "repeated", "corrected", "wrong")):
    """Rows {item, arm, seed, head, hidden, speed, ...} of what features say of held-out clips: means over the noise levels.

    Arms stand under the name of their training. Undefined values (a clip in which nothing moves) stay undefined.
    """
    rows = sweep[sweep["arm"].str.endswith(FEATURES)]
    kept = [c for c in columns if c in rows]
    about = [c for c in ("hidden", "speed") if c in rows]
    means = rows.groupby(["item", "arm", "seed", "head"], sort=False)[[*about, *kept]].mean().reset_index()
    return means.assign(arm=means["arm"].str.removesuffix(FEATURES))


def by_time(sweep):
    """Rows {item, arm, seed, t, hit, ...} of features, arms under the name of their training."""
    rows = sweep[sweep["arm"].str.endswith(FEATURES)]
    return rows.assign(arm=rows["arm"].str.removesuffix(FEATURES))


def rungs(sweep, targets=None, taught: Mapping[str, str] | None = None):
    """Rows {item, arm, rung, value} of the ladder from a target to samples, of every arm that has been measured there.

    targets: hits of what a block is taught, from rows of a sweep of teachers (taught: {arm: its row there}); features: hits of what the
    block says, mean over noise levels; loss: held-out loss on the subject's cells; samples: mean of both readers' structure errors.
    """
    import pandas as pd

    parts = []
    if targets is not None:
        for arm, row in (taught or {}).items():
            found = targets[targets["arm"] == row]
            parts.append(found.assign(arm=arm, rung="targets", value=found["hit"]))
    said = over_times(sweep)
    parts.append(said.assign(rung="features", value=said.get("hit", np.nan)))
    loss = sweep[sweep["arm"].str.endswith(LOSS)]
    parts.append(loss.assign(arm=loss["arm"].str.removesuffix(LOSS), rung="loss", value=loss.get("loss_subject", np.nan)))
    clips = judged(sweep)
    parts.append(clips.assign(rung="samples", value=(clips["structure_0"] + clips["structure_1"]) / 2))
    return pd.concat([part[["item", "arm", "rung", "value"]] for part in parts if len(part)], ignore_index=True)
