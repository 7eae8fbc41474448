"""The tamper campaign: single changes of evidence in a small checkout, each of which `motionlab verify` must name.

    python tests/tampering.py --out docs/tamper.md

Each is made twice: as it is, and covered up: MANIFEST, tables and README are then written anew by the kit's own commands and
everything is committed, as somebody would who wants it to pass. What the second way leaves unnamed is said in the table.
"""
from __future__ import annotations

import argparse
import contextlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "lib")]

from ledger_example import make_root, rows, run_notebook  # noqa: E402
from motionlab import ledger  # noqa: E402
from motionlab.core import digests  # noqa: E402
from motionlab.core.errors import MotionLabError  # noqa: E402
from motionlab.ledger import manifest  # noqa: E402
from motionlab.ledger import verdict as judging  # noqa: E402
from motionlab.ledger.claims import load_claims, load_measured  # noqa: E402
from motionlab.ledger.criteria import checksum  # noqa: E402
from motionlab.ledger.publishing import measured_text  # noqa: E402
from motionlab.ledger.selection import Point, choose, write_chosen  # noqa: E402
from motionlab.ledger.verdict import file_sha, read_raw  # noqa: E402
from motionlab.ledger.verify import verify  # noqa: E402

AUDIT = "reproductions/audit"


# ---------------------------------------------------------------------------------------------------------- a checkout


def git(root: Path, *words: str) -> str:
    own = ("-c", "user.name=Someone", "-c", "user.email=someone@example.org", "-c", "commit.gpgsign=false", "-c", "core.autocrlf=false")
    return subprocess.run(["git", *own, *words], cwd=root, check=True, capture_output=True, text=True).stdout


def commit(root: Path, says: str) -> str:
    git(root, "add", "-A")
    git(root, "commit", "-q", "--allow-empty", "-m", says)
    return git(root, "rev-parse", "HEAD").strip()


def checkout(root: Path) -> Path:
    """A checkout with all kinds of evidence and an honest history: criterion, measurement, a new criterion, a new measurement."""
    root.mkdir(parents=True, exist_ok=True)
    make_root(root)
    git(root, "init", "-q", "-b", "main")
    write(root / ".gitignore", "runs/\nreproductions/report/\n.lock-*\n")
    write(root / "reproductions/protocol.yaml", "version: 6\nseeds: [1, 25]\n")
    write(root / AUDIT / "params/full.yaml", "09_audit: {n_clips: 40}\n")
    write(root / AUDIT / "pilots/dev.csv", "item,arm,seed,mf_paper\ndev-1,identity,0,0.91\n")
    commit(root, "Criteria")
    ledger.publish(measured(root), root)
    publish_others(root)
    seal(root)
    commit(root, "Measurement")
    claims = root / AUDIT / "claims.yaml"
    edit(claims, "within: [0.05, null]", "within: [0.06, null]")
    edit(claims, "version: 1\n", "version: 2\n")
    edit(claims, 'measurement"}]', 'measurement"}, {version: 2, date: "2026-11-22", reason: "the floor is 0.06"}]')
    commit(root, "A criterion's second version")
    ledger.publish(measured(root), root)
    seal(root)
    commit(root, "Measured by the second version")
    return root


def measured(root: Path) -> Path:
    """A finished run with an executed notebook."""
    run = run_notebook(root, with_pictures=True)
    write(run / "executed.ipynb", json.dumps({"cells": [{"cell_type": "code", "outputs": [{"text": "audit.A1  holds"}]}]}))
    return run


def publish_others(root: Path) -> None:
    """Sweep rows, a choice of rates, weights with card, curve and sheet of samples."""
    home = root / AUDIT
    write(home / "raw/sweep_full.csv", "item,arm,seed,structure_0\nworld-1,plain,0,0.25\nworld-2,plain,0,0.27\n")
    write(home / "raw/sweep_full.json", json.dumps([{"arm": "plain", "seed": 0, "commit": "abc", "settings": {"protocol": 6}}], indent=1))
    lines = [f"dev-{k},dev.plain@lr={rate},0,{0.2 + rate + k / 100},{0.2 + rate + k / 90},1\n" for rate in (0.001, 0.003) for k in range(4)]
    write(home / "raw/choose_full.csv", "item,arm,seed,structure_0,structure_1,move_ok\n" + "".join(lines))
    grid = [Point("plain", f"dev.plain@lr={rate}", {"lr": rate}) for rate in (0.001, 0.003)]
    write_chosen(choose(read_raw(home / "raw/choose_full.csv"), grid, "plain"), home)
    weights = home / "checkpoints/base.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(bytes(range(256)) * 8)
    digests.record(weights)
    write(home / "checkpoints/base.md", "# base\n\n| base | 1000 | 12 | 0.213 |\n")
    write(home / "curves/base.csv", "step,loss\n500,0.4\n1000,0.213\n")
    (home / "samples").mkdir()
    (home / "samples/base_1000.png").write_bytes(b"\x89PNG samples")


def seal(root: Path) -> None:
    """Write MANIFEST and every table as the kit's commands write them."""
    manifest.enter_all(root)
    ledger.update_readme(root)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text, (path, old)
    write(path, text.replace(old, new, 1))


# -------------------------------------------------------------------------------------------------------- single changes


@dataclass(frozen=True)
class Change:
    """One change of evidence. names: what a sentence of `verify` must contain, one of several."""

    says: str
    do: Callable[[Path], None]
    names: tuple[str, ...]


CHANGES: list[Change] = []


def change(says: str, *names: str):
    """Enter a function of the checkout's `reproductions/audit` as a change."""
    def enter(do: Callable[[Path], None]):
        CHANGES.append(Change(says, do, names))
        return do
    return enter


def records_of(home: Path, do: Callable[[dict], None]) -> None:
    """Change measured.yaml as data, and write it as publishing does."""
    known = load_measured("audit", home.parent.parent)
    do(known)
    write(home / "measured.yaml", measured_text(known))


def resealed(record: dict, **fields) -> dict:
    """A record or result with other fields, and a checksum that fits them."""
    record.update(fields)
    record["checksum"] = checksum(record)
    return record


def flipped(path: Path, at: int = 100) -> None:
    data = bytearray(path.read_bytes())
    data[min(at, len(data) - 1)] ^= 1
    path.write_bytes(data)


def other_cell(home: Path) -> None:
    path = home / "raw/09_world.csv"
    lines = path.read_text().split("\n")
    cells = lines[1].split(",")
    lines[1] = ",".join([*cells[:3], "0.123456789", *cells[4:]])
    write(path, "\n".join(lines))


@change("a raw cell", "raw/09_world.csv")
def _(home):
    other_cell(home)


@change("a raw row dropped", "raw/09_world.csv")
def _(home):
    path = home / "raw/09_world.csv"
    write(path, path.read_text().rsplit("\n", 2)[0] + "\n")


@change("a raw file cut short in the middle of a row", "raw/09_world.csv")
def _(home):
    path = home / "raw/09_world.csv"
    write(path, path.read_text()[:1000])


@change("a raw file taken away", "raw/09_world.csv")
def _(home):
    (home / "raw/09_world.csv").unlink()


@change("a raw cell, and its record's digest and checksum made anew", "raw/09_world.csv")
def _(home):
    other_cell(home)

    def forge(known):
        for records in known.values():
            resealed(records[-1], raw={"09_world.csv": file_sha(home / "raw/09_world.csv")})

    records_of(home, forge)


@change("raw rows that turn a verdict, judged again, in the old record's place", "audit.A1")
def _(home):
    path, claims = home / "raw/09_world.csv", load_claims("audit", home.parent.parent)
    import pandas

    frame = pandas.DataFrame(rows()).assign(mf_paper=lambda table: table["mf_paper"].where(table["arm"] != "identity", 0.5))
    write(path, frame.to_csv(index=False))

    def forge(known):
        for claim, records in known.items():
            word, parts = judging.judge(claims[claim].criterion, lambda name: read_raw(home / "raw" / name))
            resealed(records[-1], verdict=word, parts=json.loads(json.dumps(parts)), raw={"09_world.csv": file_sha(path)})

    records_of(home, forge)


@change("a committed row that no record names yet", "raw/sweep_full.csv")
def _(home):
    edit(home / "raw/sweep_full.csv", "0.27", "0.21")


@change("the record of a sweep's row", "raw/sweep_full.json")
def _(home):
    edit(home / "raw/sweep_full.json", "abc", "abd")


@change("a dev row behind a choice of rates", "chosen.yaml")
def _(home):
    edit(home / "raw/choose_full.csv", "dev.plain@lr=0.001,0,0.201", "dev.plain@lr=0.001,0,0.901")


@change("a chosen rate", "chosen.yaml")
def _(home):
    edit(home / "chosen.yaml", "plain: {lr: 0.001}", "plain: {lr: 0.003}")


@change("a digit of a record", "measured.yaml")
def _(home):
    edit(home / "measured.yaml", "n: 40", "n: 41")


@change("a record's verdict, and its checksum made anew", "recorded as 'fails'")
def _(home):
    records_of(home, lambda known: resealed(known["audit.A1"][-1], verdict="fails"))


@change("a record's commit, and its checksum made anew", "measured.yaml")
def _(home):
    records_of(home, lambda known: resealed(known["audit.A1"][-1], commit=None))


@change("a claim's newest record dropped", "audit.A1")
def _(home):
    records_of(home, lambda known: known["audit.A1"].pop())


@change("a claim's older record dropped", "audit.A1")
def _(home):
    records_of(home, lambda known: known["audit.A1"].pop(0))


@change("all records of a claim dropped", "audit.A2")
def _(home):
    records_of(home, lambda known: known.pop("audit.A2"))


@change("two records changed places", "audit.A1")
def _(home):
    records_of(home, lambda known: known["audit.A1"].reverse())


@change("a record entered under a claim that was never judged", "audit.A3")
def _(home):
    records_of(home, lambda known: known.update({"audit.A3": known["audit.A1"][-1:]}))


@change("measured.yaml taken away", "audit/measured.yaml")
def _(home):
    (home / "measured.yaml").unlink()


@change("measured.yaml written in another style of YAML", "not as publishing writes it")
def _(home):
    write(home / "measured.yaml", json.dumps(load_measured("audit", home.parent.parent)))


@change("a criterion loosened after it was measured", "audit.A1")
def _(home):
    edit(home / "claims.yaml", "within: [0.06, null]", "within: [0.01, null]")


@change("a criterion loosened after it was measured, and the record's claim_sha and bounds with it", "audit.A1")
def _(home):
    edit(home / "claims.yaml", "within: [0.06, null]", "within: [0.01, null]")
    sha = load_claims("audit", home.parent.parent)["audit.A1"].sha

    def forge(known):
        known["audit.A1"][-1]["parts"][0]["within"] = [0.01, None]
        resealed(known["audit.A1"][-1], claim_sha=sha)

    records_of(home, forge)


@change("a paper's number", "audit.A1")
def _(home):
    edit(home / "claims.yaml", "78.3", "78.4")


@change("a judged claim removed", "audit.A2")
def _(home):
    without_claim(home)


@change("a judged claim removed, and its records with it", "audit.A2")
def _(home):
    without_claim(home)
    records_of(home, lambda known: known.pop("audit.A2"))


def without_claim(home: Path) -> None:
    text = (home / "claims.yaml").read_text()
    write(home / "claims.yaml", text[:text.index("  audit.A2:")] + text[text.index("  audit.A3:"):])


@change("claims.yaml taken away", "audit/claims.yaml")
def _(home):
    (home / "claims.yaml").unlink()


@change("a judged claim made a draft", "audit.A1")
def _(home):
    edit(home / "claims.yaml", "status: final", "status: draft")


@change("what a criterion bears on", "claims.yaml")
def _(home):
    edit(home / "claims.yaml", "bearing: proxy", "bearing: direct")


@change("the protocol", "protocol.yaml")
def _(home):
    edit(home.parent / "protocol.yaml", "25", "26")


@change("a parameter of a tier", "params/full.yaml")
def _(home):
    edit(home / "params/full.yaml", "40", "20")


@change("a row of a pilot", "pilots/dev.csv")
def _(home):
    edit(home / "pilots/dev.csv", "0.91", "0.95")


@change("two pictures swapped", "figures/response.png")
def _(home):
    one, two = home / "figures/response.png", home / "figures/moving_square.poster.png"
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second), two.write_bytes(first)


@change("a bit of a video", "figures/moving_square.mp4")
def _(home):
    flipped(home / "figures/moving_square.mp4")


@change("an output in an executed notebook", "executed/09_audit.ipynb")
def _(home):
    edit(home / "executed/09_audit.ipynb", "holds", "fails")


@change("a note in a run's result", "executed/09_audit.json")
def _(home):
    edit(home / "executed/09_audit.json", '"speed": 1.5', '"speed": 1.6')


@change("a figure, and its digest and checksum in the run's result", "figures/response.png", "executed/09_audit.json changed")
def _(home):
    path = home / "executed/09_audit.json"
    flipped(home / "figures/response.png")
    result = json.loads(path.read_text())
    result["figures"][0]["sha256"] = file_sha(home / "figures/response.png")
    write(path, json.dumps(resealed(result), indent=1, ensure_ascii=False) + "\n")


@change("a bit of a checkpoint", "checkpoints/base.safetensors")
def _(home):
    flipped(home / "checkpoints/base.safetensors")


@change("a bit of a checkpoint, and its line in checkpoints.sha256", "checkpoints/base.safetensors")
def _(home):
    flipped(home / "checkpoints/base.safetensors")
    digests.record(home / "checkpoints/base.safetensors")


@change("a number in a model card", "checkpoints/base.md")
def _(home):
    edit(home / "checkpoints/base.md", "0.213", "0.113")


@change("a curve cut short", "curves/base.csv")
def _(home):
    write(home / "curves/base.csv", "step,loss\n500,0.4\n")


@change("a sheet of samples renamed", "samples/base_2000.png")
def _(home):
    (home / "samples/base_1000.png").rename(home / "samples/base_2000.png")


@change("a file that nothing lists", "raw/late.csv")
def _(home):
    write(home / "raw/late.csv", "item,arm,seed\nworld-1,plain,0\n")


@change("a line taken out of MANIFEST", "curves/base.csv")
def _(home):
    path = home.parent / "MANIFEST"
    write(path, "".join(line for line in path.read_text().splitlines(keepends=True) if "curves/base.csv" not in line))


@change("lines of MANIFEST in another order", "MANIFEST")
def _(home):
    path = home.parent / "MANIFEST"
    head, *lines = path.read_text().splitlines(keepends=True)
    write(path, "".join([head, *lines[::-1]]))


@change("MANIFEST taken away", "MANIFEST")
def _(home):
    (home.parent / "MANIFEST").unlink()


# -------------------------------------------------------------------------------------------------------------- campaign


def tried(template: Path, one: Change, covered: bool) -> tuple[list[str], bool]:
    """What `verify` says after a change, in a copy of the checkout, and whether anything of it is left.

    Args:
        covered: whether everything was written anew and committed.
    """
    with tempfile.TemporaryDirectory() as place:
        root = Path(shutil.copytree(template, Path(place) / "checkout"))
        before = git(root, "rev-parse", "HEAD").strip()
        one.do(root / AUDIT)
        if covered:
            manifest.enter_all(root)
            with contextlib.suppress(MotionLabError):  # it cannot be rendered: verify will say why
                ledger.update_readme(root)
            commit(root, "Cleaned up")
        return verify(root), bool(git(root, "diff", "--name-only", before) or git(root, "status", "--porcelain"))


def naming(said: list[str], one: Change) -> str | None:
    """The first sentence that names a change; None where none does."""
    return next((sentence for sentence in said if any(name in sentence for name in one.names)), None)


def cut(sentence: str) -> str:
    """What of a sentence fits a table: without the place of a trial, and without what differs in each."""
    text = re.sub(r"\S*/checkout/", "", sentence.split("\n")[0]).replace("|", "\\|")
    text = re.sub(r"^commit \w+ of [\d-]+:", "its commit:", re.sub(r"\b[0-9a-f]{8}\b", "the commit before", text))
    text = re.sub(r"20\d\d-\d\d-\d\d(T[\d:]+Z)?", "DATE", re.sub(r"^commit the commit before of [\d-]+:", "its commit:", text))
    return text if len(text) < 150 else text[:150].rsplit(" ", 1)[0] + " ..."


def row(number: int, one: Change, plain: tuple[list[str], bool], covered: tuple[list[str], bool]) -> str:
    """A line of the table."""
    def cell(said: list[str], left: bool, otherwise: str) -> str:
        found = naming(said, one)
        return (otherwise if left else "nothing is left of it") if found is None else cut(found)

    return f"| {number} | {one.says} | {cell(*plain, '**not named**')} | {cell(*covered, 'only in the diff of MANIFEST')} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, help="write the table there too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        template = checkout(Path(place) / "template")
        assert verify(template) == [], verify(template)
        found = [(one, tried(template, one, False), tried(template, one, True)) for one in CHANGES]
    plain, covered = (sum(naming(both[k][0], one) is not None for one, *both in found) for k in (0, 1))
    undone = sum(not left for _, _, (_, left) in found)
    lines = ["# Tamper campaign", "", "Made by `python tests/tampering.py --out docs/tamper.md`, on a small checkout with all kinds of evidence.", "",
             f"**As it is: {plain} of {len(found)} named by `motionlab verify`.** Covered up (MANIFEST, tables and README written anew by the",
             f"kit's own commands, and committed): {covered} of the {len(found) - undone} of which something is left. The others leave their line in",
             "the diff of MANIFEST, where a reviewer sees it (`git diff REV -- reproductions/MANIFEST`); nothing else tells them from honest work.", "",
             "| | one change of | named as it is | covered up and committed |", "|---|---|---|---|",
             *(row(number + 1, *one) for number, one in enumerate(found))]
    print("\n".join(lines))
    if options.out:
        options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0 if plain == len(found) else 1


if __name__ == "__main__":
    sys.exit(main())
