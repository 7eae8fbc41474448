"""The notebook's side: files of a run, size limits, errors of the disk, publishing."""

from __future__ import annotations

import errno
import io
import json
import os

import numpy as np
import pytest
import yaml

from ledger_example import CLAIMS, PARAMETERS, make_root, rows, run_notebook, start_book, write_notebook
from motionlab import ledger
from motionlab.core import files
from motionlab.core.errors import MotionLabError
from motionlab.ledger.claims import load_measured
from motionlab.ledger.criteria import checksum


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("MOTIONLAB_ROOT", str(make_root(tmp_path)))
    return tmp_path


def test_a_run_leaves_raw_result_and_records(root, capsys):
    out = run_notebook(root)
    result = json.loads((out / "result.json").read_text())
    record = result["claims"]["audit.A1"]
    assert record["verdict"] == "holds" and record["parts"][0]["estimate"] == pytest.approx(0.3, abs=0.03)
    assert record["checksum"] == checksum(record) and set(record["raw"]) == {"09_world.csv"}
    assert {
        "tier",
        "notebook",
        "params",
        "criterion_version",
        "claim_sha",
        "commit",
        "dirty",
        "date",
        "device",
        "versions",
        "seconds",
    } <= set(record)
    assert result["claims"]["audit.A2"]["verdict"] == "holds" and len(result["claims"]["audit.A2"]["parts"]) == 2
    assert result["notes"] == {"speed": 1.5} and result["params"] == {"seed": 0, "n_clips": 40}
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("audit.A1  holds  +0.29") and "wanted ≥ 0.05" in lines[0] and "(n=40)" in lines[0]
    assert not list(out.rglob("*.tmp*"))


def test_raw_keeps_nine_digits_and_text_items(root):
    frame = start_book(root).raw(
        "x.csv", [{"m": 1 / 3, "item": 7, "arm": "a", "seed": 0, "ok": True, "gone": float("nan")}]
    )
    assert list(frame.columns) == ["item", "arm", "seed", "m", "ok", "gone"] and frame["item"][0] == "7"
    assert (root / "out/raw/x.csv").read_text() == "item,arm,seed,m,ok,gone\n7,a,0,0.333333333,True,\n"


def test_tier_paper_asks_for_a_backbone(root):
    write_notebook(root, parameters=PARAMETERS + '\nbackbone = ""')
    with pytest.raises(MotionLabError, match="-p backbone=FOLDER"):
        start_book(root, "paper", backbone="")
    assert start_book(root, "paper", backbone="weights/wan").tier == "paper"


def test_committed_rows_are_taken_over_byte_by_byte(root):
    with pytest.raises(MotionLabError, match="motionlab sweep audit --tier full --publish"):
        start_book(root).committed()
    with pytest.raises(MotionLabError, match="motionlab sweep reproductions/audit/longer.yaml --tier full --publish"):
        start_book(root).committed("longer_full.csv")
    source = root / "reproductions/audit/raw/sweep_full.csv"
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_text("item,arm,seed,m,n\n007,a,0,0.10,\n")
    book = start_book(root)
    frame = book.committed()
    assert frame["item"][0] == "007" and np.isnan(frame["n"][0])
    assert (root / "out/raw/sweep_full.csv").read_bytes() == source.read_bytes() and "sweep_full.csv" in book.raws


@pytest.mark.parametrize(
    "name, data, sentence",
    [
        ("../x.csv", [{"item": 1, "arm": "a", "seed": 0}], "no good name"),
        ("x.txt", [], "no good name"),
        ("x.csv", [], "lacks the column 'item'"),
        ("x.csv", [{"item": 1, "arm": "a", "m": 2}], "lacks the column 'seed'"),
    ],
)
def test_bad_raw_data(root, name, data, sentence):
    with pytest.raises(MotionLabError, match=sentence):
        start_book(root).raw(name, data)


def test_judge_says_what_is_wrong(root):
    book = start_book(root)
    with pytest.raises(MotionLabError, match="Did you mean 'audit.A1'"):
        book.judge("audit.a1")
    with pytest.raises(MotionLabError, match="is a draft"):
        book.judge("audit.A3")
    with pytest.raises(MotionLabError, match="without a criterion"):
        book.judge("audit.A5")
    with pytest.raises(MotionLabError, match="has not written that raw file"):
        book.judge("audit.A1")
    assert book.judge("audit.A4")["verdict"] == "not transferable"
    book.raw("09_world.csv", rows())
    html = book.judge("audit.A1")._repr_html_()
    assert "holds" in html and "78.3 -&gt; 93.7" in html


def test_unknown_paper_or_tier(root):
    with pytest.raises(MotionLabError, match="Did you mean 'laptop'"):
        start_book(root, "lptop")
    path = root / "notebooks/09_audit.ipynb"
    path.write_text(path.read_text().replace('"audit"', '"aduit"'))
    with pytest.raises(MotionLabError, match="Unknown paper 'aduit'"):
        start_book(root)


# --- which notebook, and what it was run with


def opened(values: dict, *words):
    """`open_book(*words)` called from a module, or from a kernel, that holds these names."""
    exec(f"from motionlab.ledger import open_book\nbook = open_book(*{words!r})", values)
    return values["book"]


def test_a_book_takes_everything_from_where_it_is_opened(root, monkeypatch):
    values = {"tier": "full", "out_dir": "runs/elsewhere", "seed": np.int64(7), "n_clips": 3, "other": object()}
    monkeypatch.setenv("MOTIONLAB_NOTEBOOK", "09_audit")
    book = opened(dict(values))
    assert (book.notebook, book.claims.paper, book.tier) == ("09_audit", "audit", "full")
    assert book.params == {"seed": 7, "n_clips": 3} and book.out_dir == root / "runs/elsewhere"
    del values["n_clips"]
    with pytest.raises(MotionLabError, match="parameter 'n_clips' of 09_audit is not set"):
        opened(values)


@pytest.mark.parametrize("told", ["JPY_SESSION_NAME", "__session__", "__vsc_ipynb_file__", "out_dir", "said"])
def test_a_notebook_knows_its_name(root, monkeypatch, told):
    """From JupyterLab, VS Code, the folder for its results, or because it says it."""
    for name in ("MOTIONLAB_NOTEBOOK", "JPY_SESSION_NAME"):
        monkeypatch.delenv(name, raising=False)
    write_notebook(root, "10_other")
    values, path = {"seed": 0, "n_clips": 1}, str(root / "notebooks/10_other.ipynb")
    if told == "JPY_SESSION_NAME":
        monkeypatch.setenv(told, "notebooks/10_other.ipynb")                   # older servers: relative to where they serve
    elif told != "said":
        values[told] = "runs/laptop/10_other" if told == "out_dir" else path
    assert opened(values, *(["10_other"] if told == "said" else [])).notebook == "10_other"


def test_a_copy_of_a_notebook_outside_the_checkout_is_read_where_it_lies(root, tmp_path_factory, monkeypatch):
    copy = tmp_path_factory.mktemp("desk") / "my copy.ipynb"
    copy.write_text((root / "notebooks/09_audit.ipynb").read_text())
    monkeypatch.delenv("MOTIONLAB_NOTEBOOK", raising=False)
    book = opened({"__session__": str(copy), "seed": 0, "n_clips": 1})
    assert book.notebook == "my copy" and book.out_dir == root / "runs/laptop/my copy"


def test_a_notebook_that_nobody_names_asks_for_its_name(root, monkeypatch):
    for name in ("MOTIONLAB_NOTEBOOK", "JPY_SESSION_NAME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(MotionLabError, match=r'Say it: open_book\("01_its_name"\)'):
        opened({"seed": 0})
    with pytest.raises(MotionLabError, match="Did you mean '09_audit'"):
        opened({"seed": 0}, "09_aduit")


def test_figures_are_kept_small(root):
    from matplotlib.figure import Figure
    from PIL import Image

    fig = Figure(figsize=(5, 4))
    fig.subplots().imshow(np.random.default_rng(0).random((700, 800, 3)))
    path = start_book(root).figure(fig, "noise", caption="c", alt="a")
    assert path.stat().st_size <= 200 * 1024 and min(Image.open(path).size) > 150


def test_video_plays_and_has_a_poster(root):
    import av

    book = start_book(root)
    path = book.video(np.random.default_rng(0).integers(0, 255, (5, 47, 51, 3), dtype=np.uint8), "clip", fps=7.5)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        decoded = list(container.decode(stream))
        assert (
            stream.codec_context.name == "h264"
            and len(decoded) == 5
            and float(stream.average_rate) == pytest.approx(7.5)
        )
        assert decoded[0].width % 2 == 0 and min(decoded[0].width, decoded[0].height) >= 192
    assert (root / "out/figures/clip.poster.png").stat().st_size <= 200 * 1024
    with pytest.raises(MotionLabError, match="Give uint8"):
        book.video(np.zeros((5, 4, 4)), "clip", fps=8)


def test_notes_must_have_a_json_form(root):
    book = start_book(root)
    book.note("x", {"a": np.arange(2), "b": (np.float64("nan"), root)})
    assert book.notes["x"]["a"] == [0, 1] and book.notes["x"]["b"][0] is None
    with pytest.raises(MotionLabError, match="no JSON form"):
        book.note("y", object())


# ---------------------------------------------------------------------------------------------------- disks and folders


def fail_with(monkeypatch, code):
    """Every write to a draft fails with this errno."""

    def broken(path, mode="r", *args, **kwargs):
        if "w" in mode:
            raise OSError(code, os.strerror(code), str(path))
        return io.open(path, mode, *args, **kwargs)

    monkeypatch.setattr(files, "open", broken, raising=False)


@pytest.mark.parametrize(
    "code, sentence", [(errno.ENOSPC, "The disk is full"), (errno.EROFS, "read-only"), (errno.EACCES, "read-only")]
)
def test_full_disk_and_read_only_folder(root, monkeypatch, code, sentence):
    book = start_book(root)
    book.raw("09_world.csv", rows(3))
    book.close()
    before = (root / "out/result.json").read_bytes()
    fail_with(monkeypatch, code)
    for act in (book.close, lambda: book.raw("09_world.csv", rows(4)), lambda: start_book(root)):
        with pytest.raises(MotionLabError, match=sentence):
            act()
    assert (root / "out/result.json").read_bytes() == before and not list((root / "out").rglob(".*tmp*"))


def test_full_disk_while_a_video_is_encoded(root, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("av.open", full)
    with pytest.raises(MotionLabError, match="The disk is full"):
        start_book(root).video(np.zeros((2, 8, 8, 3), np.uint8), "clip", 8)


def test_output_folder_that_is_a_file(root):
    (root / "out").write_text("")
    with pytest.raises(MotionLabError, match="cannot be written"):
        start_book(root)


def test_a_kill_before_the_last_step_leaves_the_old_file(tmp_path, monkeypatch):
    target = files.write_atomic(tmp_path / "x", "old")

    def killed(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        files.write_atomic(target, "new")
    assert target.read_text() == "old" and os.listdir(tmp_path) == ["x"]


# ----------------------------------------------------------------------------------------------------------- publishing


def test_publish_appends_and_never_edits(root):
    out = run_notebook(root, with_pictures=True)
    assert ledger.publish(out) == ["audit.A1", "audit.A2"]
    home = root / "reproductions/audit"
    for name in (
        "raw/09_world.csv",
        "figures/response.png",
        "figures/moving_square.mp4",
        "figures/moving_square.poster.png",
        "executed/09_audit.ipynb",
        "executed/09_audit.json",
    ):
        assert (home / name).exists(), name
    first = load_measured("audit", root)["audit.A1"]
    assert ledger.publish(out) == [] and load_measured("audit", root)["audit.A1"] == first
    again = json.loads((out / "result.json").read_text())
    for record in again["claims"].values():
        record["seconds"] += 1
        record["checksum"] = checksum(record)
    (out / "result.json").write_text(json.dumps(again))
    assert ledger.publish(out) == ["audit.A1", "audit.A2"]
    records = load_measured("audit", root)["audit.A1"]
    assert (
        records[:1] == first and len(records) == 2 and all(record["checksum"] == checksum(record) for record in records)
    )
    assert yaml.safe_load((home / "measured.yaml").read_text())["audit.A1"] == records


def test_smoke_is_never_published(root):
    with pytest.raises(MotionLabError, match="never evidence"):
        ledger.publish(run_notebook(root, "smoke"))


@pytest.mark.parametrize(
    "damage, sentence",
    [
        (lambda out, root: (out / "result.json").unlink(), "no finished run"),
        (lambda out, root: (out / "result.json").write_text("{"), "cannot be read"),
        (lambda out, root: (out / "result.json").write_text('{"a": 1}'), "no result of a notebook"),
        (
            lambda out, root: (out / "raw/09_world.csv").write_text("item,arm,seed\n1,a,0\n"),
            "not the file that was judged",
        ),
        (
            lambda out, root: (root / "reproductions/audit/claims.yaml").write_text(
                CLAIMS.replace("0.05, null", "0.06, null")
            ),
            "claim changed after",
        ),
    ],
)
def test_publish_refuses_what_does_not_fit(root, damage, sentence):
    out = run_notebook(root)
    damage(out, root)
    with pytest.raises(MotionLabError, match=sentence):
        ledger.publish(out)
    assert not (root / "reproductions/audit/measured.yaml").exists()


def test_a_lower_tier_does_not_replace_a_higher_one(root):
    ledger.publish(run_notebook(root, "full"))
    with pytest.raises(MotionLabError, match="published at tier full"):
        ledger.publish(run_notebook(root, "laptop"))


def test_raw_data_behind_another_claim_is_not_replaced(root):
    ledger.publish(run_notebook(root))
    book = start_book(root)
    book.raw("09_world.csv", rows(50))
    book.judge("audit.A1"), book.close()
    with pytest.raises(MotionLabError, match="also stands behind audit.A2"):
        ledger.publish(root / "out")
