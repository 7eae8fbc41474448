"""What stands behind a verdict, as files: raw rows, notebooks, code, the line of the criterion; and floors read out of raw rows."""
from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from motionlab.core.errors import MotionLabError
from motionlab.core.stats import estimate
from motionlab.ledger import verdict as judging
from motionlab.ledger.criteria import Claim, Criterion
from motionlab.ledger.notebooks import Notebook, read_notebook
from motionlab.ledger.report.costs import Costs
from motionlab.ledger.report.pictures import Run

CODEC = "reconstruction"      # the arm that nothing but the codec touched


@dataclass(frozen=True)
class Source:
    """A file, what it is, and where in it to look."""

    label: str
    path: Path
    note: str = ""


class Sources:
    """Finds files behind claims; each is read once."""

    def __init__(self, root: Path, costs: Costs):
        self.root, self.costs = root, costs

    def of(self, claim: Claim, record: dict | None, run: Run | None) -> list[Source]:
        """Every file behind a claim that is there: raw rows, executed notebook, code, criterion, how the paper is read."""
        home = self.root / "reproductions" / claim.paper
        found = [Source("raw rows", home / "raw" / name) for name in (record["raw"] if record else ())]
        if run and run.executed:
            found.append(Source("executed notebook", run.executed))
        notebook = self.notebook(claim.notebook) if claim.notebook else None
        if notebook:
            found.append(Source("notebook", notebook.path, cells_of(notebook, record["raw"] if record else ())))
        found += self.functions(claim.paper, record["raw"] if record else ())
        found.append(Source("criterion", home / "claims.yaml", f"line {self.line(claim)}"))
        found.append(Source("how it is read here, and what differs", home / "README.md"))
        return [one for one in found if one.path.is_file()]

    def functions(self, paper: str, raws) -> list[Source]:
        """The functions that measured the rows of sweeps."""
        named = dict.fromkeys(row.function for raw in raws for row in self.costs.rows(paper, raw) if row.function)
        there = [name for name in named if self.place(name)[0].is_file()]
        if named and not there:                       # it has moved since: what the sweeps run now
            there = self.functions_now(paper)
        return [Source("code of a row", *self.place(name)) for name in there]

    @functools.cache
    def functions_now(self, paper: str) -> list[str]:
        """The functions that the files of arms of a paper name."""
        texts = (path.read_text(encoding="utf-8") for path in sorted((self.root / "reproductions" / paper).glob("*.yaml")))
        return list(dict.fromkeys(name for text in texts for name in re.findall(r"^row: ([\w.]+:\w+)\s*$", text, flags=re.MULTILINE)))

    @functools.cache
    def place(self, name: str) -> tuple[Path, str]:
        """File and line of a function "package.module:function"."""
        module, _, function = name.partition(":")
        path = self.root / "lib" / Path(*module.split(".")).with_suffix(".py") if re.fullmatch(r"[\w.]+", module) else self.root / "lib"
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        line = next((number for number, text in enumerate(lines, 1) if text.startswith(f"def {function}(")), None)
        return path, f"{function}, line {line}" if line else function

    @functools.cache
    def notebook(self, stem: str) -> Notebook | None:
        try:
            return read_notebook(stem, self.root)
        except MotionLabError:
            return None

    def line(self, claim: Claim) -> int:
        """The line of claims.yaml where a claim begins."""
        return self.lines(claim.paper).get(claim.id, 1)

    @functools.cache
    def lines(self, paper: str) -> dict[str, int]:
        text = (self.root / "reproductions" / paper / "claims.yaml").read_text(encoding="utf-8")
        heads = ((number, re.match(r"""\s+['"]?(\S[^'"]*?)['"]?:\s*$""", line)) for number, line in enumerate(text.splitlines(), 1))
        return {head[1]: number for number, head in reversed([one for one in heads if one[1]])}

    # ------------------------------------------------------------------------------------------------------------ floors

    def floor(self, paper: str, part: dict) -> float | None:
        """The number of a test on reconstructions: what the codec alone costs. None for differences and ratios, and where there is none."""
        if any(part.get(name) for name in ("minus", "over", "against", "minus_best")) or part["arm"] == CODEC:
            return None
        try:
            table = self.table(paper, part["raw"])
            arm = next(name for name in (f"{part['arm']}_floor", CODEC) if name in table["arm"])
            asked = Criterion(part["raw"], part["metric"], arm, tuple(part["within"]), statistic=part["statistic"], where=part["where"])
            values = np.array(list(judging.arm_values(table, arm, asked).values()))
        except (MotionLabError, StopIteration, TypeError):
            return None
        values = values[np.isfinite(values)]
        return float(estimate(values, part["statistic"])) if len(values) else None

    @functools.cache
    def table(self, paper: str, raw: str) -> judging.Table:
        return judging.read_raw(self.root / "reproductions" / paper / "raw" / raw)


def cells_of(notebook: Notebook, raws) -> str:
    """Which code cells write or read the raw files."""
    cells = sorted({number for raw in raws for number, source in enumerate(notebook.sources, 1) if f'"{raw}"' in source})
    return f"code cell{'s' * (len(cells) > 1)} {', '.join(map(str, cells))}" if cells else ""
