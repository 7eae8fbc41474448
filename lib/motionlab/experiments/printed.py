"""What a paper printed, as data: `reproductions/<paper>/printed.yaml`, for figures that put ours beside it."""
from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from motionlab.core.config import from_values
from motionlab.core.errors import MotionLabError
from motionlab.core.paths import repo_root
from motionlab.core.yamls import read_yaml


@dataclass(frozen=True)
class Cell:
    """One cell. column, method: where it stands. arm: ours in the method's place, "" for none. doubt: why it is not to be relied on."""

    column: str
    method: str
    value: float
    arm: str = ""
    doubt: str = ""


@dataclass(frozen=True)
class Printed:
    """A file of cells. source: where they are printed."""

    source: str
    cells: list[dict]


def printed_cells(paper: str, root: Path | None = None) -> list[dict]:
    """The cells of a paper, as mappings of `Cell`'s fields, in the order written.

    Raises:
        MotionLabError: no such file, an unknown field, a cell twice.
    """
    path = Path(root or repo_root()) / "reproductions" / paper / "printed.yaml"
    if not path.is_file():
        raise MotionLabError(f"There is no '{path}'.", fix="Write what the paper printed there: column, method, value.")
    read = from_values(Printed, read_yaml(path), f"file {path.name}")
    cells = [asdict(from_values(Cell, values, f"cell {k} of {path.name}")) for k, values in enumerate(read.cells, 1)]
    places = [(cell["column"], cell["method"]) for cell in cells]
    twice = next((place for place in places if places.count(place) > 1), None)
    if twice:
        raise MotionLabError(f"{path.name} has the cell {' / '.join(twice)} twice.", fix="Keep one.")
    return cells
