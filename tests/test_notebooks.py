"""Every notebook: stripped, one parameters cell, known claims; and executed at tier smoke with its result asserted."""
import json
import subprocess
import sys
from pathlib import Path

import pytest

from motionlab.ledger import load_all

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").rglob("*.ipynb"))
VERDICTS = {"holds", "fails", "inconclusive"}


def cells(path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def test_there_are_notebooks_and_their_stems_are_unique():
    assert len(NOTEBOOKS) >= 2 and len({p.stem for p in NOTEBOOKS}) == len(NOTEBOOKS)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_sources_are_clean(path):
    code = [c for c in cells(path) if c["cell_type"] == "code"]
    assert not any(c["outputs"] or c["execution_count"] for c in code)
    tagged = [c for c in code if "parameters" in c["metadata"].get("tags", [])]
    assert len(tagged) == 1 and 'tier = "laptop"' in "".join(tagged[0]["source"])
    text = "".join("".join(c["source"]) for c in code)
    assert "/home/" not in text and "sys.path" not in text and "!pip" not in text
    assert cells(path)[0]["cell_type"] == "markdown"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_declared_claims_exist_and_point_back(path):
    meta = json.loads(path.read_text(encoding="utf-8"))["metadata"]["motionlab"]
    known = {c.id: c for paper in load_all(ROOT).values() for c in paper.claims.values()}
    assert meta["claims"] and all(known[c].notebook == path.stem for c in meta["claims"])


@pytest.mark.notebook
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_smoke_run_writes_a_complete_result(path):
    """Through the console script, so that the runner, papermill and the kernel are all in it."""
    done = subprocess.run([sys.executable, "-m", "motionlab.cli", "run", path.stem, "--tier", "smoke", "--force"], cwd=ROOT,
                          capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    result = json.loads((ROOT / "runs" / "smoke" / path.stem / "result.json").read_text(encoding="utf-8"))
    declared = json.loads(path.read_text(encoding="utf-8"))["metadata"]["motionlab"]["claims"]
    needs_mtbench = {"audit.A25", "audit.A26"} if not (ROOT / "../shared/data/mtbench").is_dir() else set()
    assert set(result["claims"]) == set(declared) - needs_mtbench and result["tier"] == "smoke"
    assert {r["verdict"] for r in result["claims"].values()} <= VERDICTS
    assert all(p["n"] for r in result["claims"].values() for p in r["parts"] if p["verdict"] != "inconclusive")
    folder = ROOT / "runs" / "smoke" / path.stem
    assert result["figures"] and all(1000 < (folder / "figures" / f["file"]).stat().st_size <= 200 * 1024 for f in result["figures"])
    assert all((folder / "raw" / raw["file"]).is_file() for raw in result["raw"])


def test_tour_looked_at_a_real_camera_clip():
    folder = ROOT / "runs" / "smoke" / "00_tour"
    if not folder.is_dir():
        pytest.skip("runs after the smoke run of 00_tour")
    note = json.loads((folder / "result.json").read_text())["notes"]["real_clip"]
    assert note["frames"] == 49 and note["size"][0] == 144 and 0.5 < note["found_at_end"] <= 1
