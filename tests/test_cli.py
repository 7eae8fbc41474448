"""The console script: exit codes, sentences, and that cheap commands stay cheap."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from motionlab import cli


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "reproductions" / "audit" / "params").mkdir(parents=True)
    (tmp_path / "reproductions/audit/params/laptop.yaml").write_text("09_audit: {_cost: {minutes: 3, ram_gb: 1}}\n")
    for stem in ("00_tour", "09_audit"):
        notebook = nbformat.v4.new_notebook(
            metadata={"motionlab": {"paper": "audit", "title": f"Title of {stem}", "claims": ["audit.A1"]}}
        )
        notebook.cells = [
            nbformat.v4.new_code_cell(
                'tier: str = "laptop"\nout_dir: str = "out"\nn_clips: int = 4', metadata={"tags": ["parameters"]}
            )
        ]
        nbformat.write(notebook, tmp_path / "notebooks" / f"{stem}.ipynb")
    monkeypatch.setenv("MOTIONLAB_ROOT", str(tmp_path))
    monkeypatch.delenv("MOTIONLAB_DEBUG", raising=False)
    return tmp_path


def finish_run(root: Path, stem: str) -> None:
    """What a finished laptop run of `stem` leaves."""
    from motionlab.runner import runs

    todo = runs.plan(stem, "laptop", {}, root)
    todo.folders.partial.mkdir(parents=True)
    (todo.folders.partial / "result.json").write_text(
        json.dumps({"notebook": stem, "claims": {"audit.A1": {"verdict": "fails"}}})
    )
    todo.folders.seal()
    (todo.folders.partial / "fingerprint.json").write_text(json.dumps(todo.fingerprint))
    todo.folders.promote()


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["rnu"], "Unknown command 'rnu'. Did you mean 'run'?"),
        (["run"], "required: NOTEBOOK"),
        (["run", "09_aduit"], "Unknown notebook '09_aduit'. Did you mean '09_audit'?"),
        (["run", "09", "--tier", "lptop"], "Unknown tier 'lptop'. Did you mean 'laptop'?"),
        (["run", "09", "-p", "nclips=3"], "Did you mean 'n_clips'?"),
        (["run", "all", "-p", "nclips=3"], "None of the notebooks has a parameter 'nclips'. Did you mean 'n_clips'?"),
        (["run", "09", "-p", "n_clips"], "not of the form key=value"),
        (["run", "all", "--paper", "audt"], "Did you mean 'audit'?"),
        (["run", "09", "--tier", "full"], "09_audit has no tier 'full'."),
        (["world", "--seed", "x", "--out", "y"], "invalid int value: 'x'"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(root, capsys, arguments, says):
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and says in error and "Traceback" not in error
    assert not (root / "runs").exists()


def test_wrong_root_is_a_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MOTIONLAB_ROOT", str(tmp_path / "nowhere"))
    assert cli.main(["list"]) == 2
    assert "MOTIONLAB_ROOT" in capsys.readouterr().err


def test_list_shows_title_claims_and_cost(root, capsys):
    assert cli.main(["list"]) == 0
    out = capsys.readouterr().out
    assert "09_audit  (audit)  Title of 09_audit" in out and "claims: audit.A1" in out
    assert "laptop  about 3 min, 1 GB RAM" in out and "laptop  cost not measured yet" in out


def test_run_all_skips_what_is_finished_without_heavy_imports(root):
    for stem in ("00_tour", "09_audit"):
        finish_run(root, stem)
    (root / "reproductions/report").mkdir()
    (root / "reproductions/report/index.html").write_text("")
    code = (
        "import sys; from motionlab import cli; code = cli.main(['run', 'all']);"
        "print('HEAVY', sorted({'torch', 'papermill', 'numpy', 'wandb'} & set(sys.modules))); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "00_tour  tier laptop: up to date, 1 fails" in done.stdout and "HEAVY []" in done.stdout


def test_a_failing_notebook_does_not_stop_the_others(root, monkeypatch, capsys):
    from motionlab.runner import runs

    def run_plan(todo, **_):
        if todo.stem == "00_tour":
            raise runs.RunFailed("00_tour failed in code cell 2", fix="Look there.")
        return runs.RunResult(todo.stem, todo.tier, "finished", todo.run_dir)

    monkeypatch.setattr(runs, "run_plan", run_plan)
    monkeypatch.setattr(cli.notebooks, "render", lambda *_: None)
    assert cli.main(["run", "all"]) == 1
    assert "1 of 2 notebooks failed: 00_tour" in capsys.readouterr().err


def test_verify_exits_1_with_the_problems(root, monkeypatch, capsys):
    from motionlab.ledger import verify

    monkeypatch.setattr(verify, "examine", lambda root, since: verify.Examined(["audit.A1: estimate differs"]))
    assert cli.main(["verify"]) == 1
    assert "audit.A1: estimate differs" in capsys.readouterr().err
    monkeypatch.setattr(verify, "examine", lambda root, since: verify.Examined())
    assert cli.main(["verify"]) == 0


def test_a_defect_is_still_a_sentence(root, monkeypatch, capsys):
    monkeypatch.setattr(cli.common, "root", lambda: 1 / 0)
    assert cli.main(["list"]) == 1
    assert "error: ZeroDivisionError: division by zero" in capsys.readouterr().err
    monkeypatch.setenv("MOTIONLAB_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        cli.main(["list"])


def test_version_and_help(capsys):
    assert cli.main(["version"]) == 0 and capsys.readouterr().out.startswith("motionlab ")
    assert cli.main([]) == 2 and "commands" in capsys.readouterr().out


def test_a_relative_path_on_the_command_line_means_where_the_user_stands(tmp_path, monkeypatch):
    (tmp_path / "clip.mp4").touch()
    monkeypatch.chdir(tmp_path)
    assert cli.common.given(["video=clip.mp4", "n=0.5", "text=a/b"]) == {
        "video": str(tmp_path / "clip.mp4"),
        "n": "0.5",
        "text": "a/b",
    }


def test_world_prints_what_it_wrote(tmp_path, capsys):
    assert cli.main(["world", "--seed", "3", "--size", "48", "--frames", "5", "--out", str(tmp_path / "w")]) == 0
    shown = capsys.readouterr().out.split()
    assert str(tmp_path / "w" / "clip.mp4") in shown and all(Path(path).is_file() for path in shown)
    assert cli.main(["world", "--size", "3", "--out", str(tmp_path / "x")]) == 2
    assert capsys.readouterr().err.startswith("error: ")
