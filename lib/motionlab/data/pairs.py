"""A file of pairs of pictures, as `motionlab sample --pairs` makes clips of and the benchmarks of transitions score them."""
from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from motionlab.core.errors import MotionLabError

COLUMNS = ("first", "last", "text_first", "text_last")


def read_pairs(path: Path, columns: Sequence[str] = COLUMNS) -> list[tuple[str, dict[str, str]]]:
    """(where it stands, row) of every row of a pairs.csv. Paths of pictures count from the file's folder and are not looked at here.

    Raises:
        MotionLabError: no such file, a column that is missing, no rows, one text of two.
    """
    say = f"Write the columns {', '.join(columns)}, a row per pair."
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines()))
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise MotionLabError(f"There is no '{path}'.", fix=say) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MotionLabError(f"'{path}' is no readable CSV ({error}).", fix=say) from None
    missing = [name for name in columns if not rows or name not in rows[0]]
    if missing:
        raise MotionLabError(f"'{path}' lacks {'rows' if not rows else f'the column {missing[0]!r}'}.", fix=say)
    found = [(f"{path.name}, row {k}", {key: (value or "").strip() for key, value in row.items() if key}) for k, row in enumerate(rows, 1)]
    for where, row in found:
        both_texts(where, row)
    return found


def both_texts(where: str, row: dict[str, str]) -> None:
    """Raises MotionLabError where one end has a text and the other has none."""
    if bool(row["text_first"]) != bool(row["text_last"]):
        raise MotionLabError(f"{where}: one text of two is given.", fix="Give both; of one caption twice the same.")
