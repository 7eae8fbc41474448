"""The doctor: what it finds, and that it says why something will not run."""

from __future__ import annotations

import json

import pytest

from motionlab import doctor


@pytest.fixture
def root(tmp_path):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "reproductions").mkdir()
    (tmp_path / "constraints.txt").write_text("# pins\ntorch==1.0\nPyYAML==6\n")
    (tmp_path / "pyproject.toml").write_text(
        '[project]\ndependencies = ["torch>=2.11", "numpy>=99", "wandb[media]>=0.1"]\n'
    )
    return tmp_path


def test_examine_is_json_and_renders(root, monkeypatch):
    monkeypatch.delenv("MOTIONLAB_WEIGHTS", raising=False)
    found = doctor.examine(root, seconds=0.02)
    assert json.loads(json.dumps(found)) == found
    assert found["speed"]["cpu"]["fp32"] > 0
    text = doctor.render(found)
    assert "MOTIONLAB_WEIGHTS is not set" in text and "Network: not needed" in text


def test_versions_are_compared_with_pins_and_ranges(root):
    found = doctor.packages(root)
    assert found["torch"]["pinned"] == "1.0" and found["torch"]["state"] == "other"
    assert found["numpy"]["state"] == "unusable" and found["numpy"]["why"] == "wants >=99"
    assert found["wandb"]["state"] == "other"


def test_weights_are_found_three_levels_deep(tmp_path):
    (tmp_path / "hub" / "THUDM" / "CogVideoX-2b").mkdir(parents=True)
    (tmp_path / "raft_small.pth").touch()
    found = doctor.weights(str(tmp_path))
    assert found["cogvideox-2b"] == "hub/THUDM/CogVideoX-2b" and found["raft"] == "raft_small.pth"
    assert found["cotracker"] is None and set(doctor.weights("/nowhere").values()) == {None}


def test_it_says_why_something_will_not_run(root):
    found = {
        "packages": {"torch": {"state": "unusable", "why": "not installed"}},
        "devices": {},
        "machine": {"ram_gb": 8.0},
        "weights": dict.fromkeys(doctor.WEIGHTS),
    }
    text = "\n".join(doctor.will_not_run(root, found))
    assert "torch: not installed." in text and "no CUDA device" in text and "no pretrained backbone" in text


def test_a_notebook_too_big_for_this_machine_is_named(root):
    import nbformat

    notebook = nbformat.v4.new_notebook(metadata={"motionlab": {"paper": "det"}})
    notebook.cells = [nbformat.v4.new_code_cell('tier: str = "x"', metadata={"tags": ["parameters"]})]
    nbformat.write(notebook, root / "notebooks" / "30_big.ipynb")
    (root / "reproductions/det/params").mkdir(parents=True)
    (root / "reproductions/det/params/paper.yaml").write_text("30_big: {_cost: {minutes: 60, vram_gb: 80}}\n")
    (root / "notebooks" / "31_broken.ipynb").write_text("{")
    reasons = doctor._too_big(root, {"machine": {"ram_gb": 8.0}}, 24.0)
    assert reasons[0] == "30_big at tier paper: it takes 80 GB of GPU memory, here are 24 GB."
    assert "31_broken.ipynb is not a readable notebook" in reasons[1]
