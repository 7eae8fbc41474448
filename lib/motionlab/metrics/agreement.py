"""Is a body more whole in one arm than in another? Only if both learned readers say so, and no motion was lost for it.

Easier motion breaks fewer limbs: an arm can lower its structure error by moving less, or by another motion than was asked. So
structure is judged beside recognised motion, which must not be inferior.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from motionlab.core.errors import MotionLabError, one_of
from motionlab.core.stats import bootstrap_interval
from motionlab.ledger.selection import MARGIN           # of move_ok, as in the protocol's selection rule
from motionlab.ledger.soundness import READERS

MOVES = ("move_ok", "move_ok_1")            # of the same readers, as `experiments.measure` calls them
VERDICTS = ("better", "worse", "no difference", "motion lost", "motion not shown to be kept", "readers disagree")


@dataclass(frozen=True)
class Agreement:
    """Both readers on one contrast. structure, move: {column: (mean difference, low, high)}, paired by item; verdict: of VERDICTS.

    better        every reader's interval lies below -least, and that of every move column above -margin
    worse         every reader's interval lies above least
    motion lost   better by structure, but the interval of a move column lies below -margin
    motion not shown to be kept   better by structure, but the interval of a move column reaches below -margin
    readers disagree              one sees an improvement or a harm that the other does not see
    no difference                 none sees either
    """

    structure: dict[str, tuple[float, float, float]]
    move: dict[str, tuple[float, float, float]]
    verdict: str
    n: int

    @property
    def agree(self) -> bool:
        """Do the readers say the same of structure, whatever became of motion?"""
        return self.verdict != "readers disagree"


def both_readers(table, arm: str, minus: str, margin: float = MARGIN, least: float = 0.0, readers=READERS, moves=MOVES) -> Agreement:
    """What both readers say of `arm` against `minus`, beside the motion that was asked for.

    Args:
        table: rows {item, arm, seed, columns of `readers` and `moves`} as DataFrame; seeds of an item are averaged first.
        margin: how much of a share of recognised motion may be lost. least: smallest difference in structure worth the name.

    Raises:
        MotionLabError: an arm or column that the table lacks, fewer than two items in both arms.
    """
    for column in (*readers, *moves):
        one_of(column, table.columns, "column")
    for name in (arm, minus):
        one_of(name, table["arm"].unique(), "arm")
    columns = [*readers, *moves]
    means = table[table["arm"].isin((arm, minus))].groupby(["arm", "item"])[columns].mean()
    gap = (means.loc[arm] - means.loc[minus]).dropna()
    if len(gap) < 2:
        raise MotionLabError(f"Arms '{arm}' and '{minus}' have {len(gap)} items in common.", fix="Measure both on the same prompts.")
    structure, move = ({c: _interval(gap[c].to_numpy()) for c in names} for names in (readers, moves))
    return Agreement(structure, move, _verdict(structure.values(), move.values(), margin, least), len(gap))


def agreements(table, arms, minus: str, **options):
    """`both_readers` of several arms as a DataFrame: one row per arm, an interval's text per column, n and verdict."""
    import pandas as pd

    rows = {}
    for arm in arms:
        found = both_readers(table, arm, minus, **options)
        told = {c: "{:+.3f} [{:+.3f}, {:+.3f}]".format(*v) for c, v in (found.structure | found.move).items()}
        rows[arm] = told | {"n": found.n, "verdict": found.verdict}
    return pd.DataFrame(rows).T


def _verdict(structure, move, margin, least):
    better, worse = ([high < -least for _, _, high in structure], [low > least for _, low, _ in structure])
    if any(better) != all(better) or any(worse) != all(worse):
        return "readers disagree"
    if not all(better):
        return "worse" if all(worse) else "no difference"
    if any(high < -margin for _, _, high in move):
        return "motion lost"
    return "better" if all(low > -margin for _, low, _ in move) else "motion not shown to be kept"


def _interval(values):
    return float(np.mean(values)), *bootstrap_interval(values)
