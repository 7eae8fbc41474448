"""Every notebook: stripped, one parameters cell, known claims; and executed at tier smoke with its result asserted."""
import json
import subprocess
import sys
from pathlib import Path

import pytest

from motionlab.ledger import load_all
from motionlab.video import write_mp4
from snapshots import wan_snapshot
from videos import moving_texture

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").rglob("*.ipynb"))
VERDICTS = {"holds", "fails", "inconclusive"}


def cells(path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def smoke(stem, *parameters):
    """The result of notebook `stem` at tier smoke, run by the console script."""
    words = [word for parameter in parameters for word in ("-p", parameter)]
    done = subprocess.run([sys.executable, "-m", "motionlab.cli", "run", stem, "--tier", "smoke", "--force", *words], cwd=ROOT,
                          capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return json.loads((ROOT / "runs" / "smoke" / stem / "result.json").read_text(encoding="utf-8"))


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
    assert max(len(line.rstrip("\n")) for c in code for line in c["source"]) <= 100


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_declared_claims_exist_and_point_back(path):
    meta = json.loads(path.read_text(encoding="utf-8"))["metadata"]["motionlab"]
    known = {c.id: c for paper in load_all(ROOT).values() for c in paper.claims.values()}
    assert meta["claims"] and all(known[c].notebook == path.stem for c in meta["claims"])


@pytest.mark.notebook
@pytest.mark.timeout(900)          # a loaded machine is no failure
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_smoke_run_writes_a_complete_result(path):
    """Through the console script, so that the runner, papermill and the kernel are all in it."""
    result = smoke(path.stem)
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


@pytest.mark.notebook
@pytest.mark.timeout(900)          # a loaded machine is no failure
def test_videojams_notebooks_train_and_sample_a_pretrained_backbone(tmp_path):
    """What tier `paper` does, on a snapshot with random weights and two videos."""
    backbone, videos = wan_snapshot(tmp_path / "wan"), tmp_path / "videos"
    videos.mkdir()
    for name, step in (("left", (-3, 0)), ("right", (2, 1))):
        write_mp4(videos / f"{name}.mp4", moving_texture(12, 48, 64, step), 16)
    (videos / "captions.csv").write_text("file,caption\nleft.mp4,a cat walks.\nright.mp4,a dog runs.\n")
    result = smoke("02_videojam_joint_training", f"videos={videos}", "size=[9,32,32]", "snapshot_steps=2", "snapshot_batch=2", f"backbone={backbone}")
    assert any(figure["file"] == "snapshot_loss.png" for figure in result["figures"])
    (tmp_path / "prompts.txt").write_text("a cat walks.\n")
    weights = ROOT / "runs/smoke/02_videojam_joint_training/snapshot/videojam.safetensors"
    result = smoke("03_videojam_inner_guidance", f"weights={weights}", f"prompt_file={tmp_path / 'prompts.txt'}", f"backbone={backbone}")
    assert any(figure["file"] == "snapshot_0.png" for figure in result["figures"])
