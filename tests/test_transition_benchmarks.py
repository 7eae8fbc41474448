"""`motionlab score --benchmark morphbench | transitbench | tcbench`: pairs of a user's folder, a judge's answers, networks by path."""
import csv
import json

import imageio.v3 as iio
import numpy as np
import pytest
import torch

import encoders
import videos
from motionlab import cli
from motionlab.benchmarks import benchmark_class
from motionlab.benchmarks.transitions import Settings, read_pairs, read_prompts
from motionlab.core.errors import MotionLabError
from motionlab.metrics.transitions.published import fid_of_frames, path_length
from motionlab.models.pretrained.perceptual import open_inception, open_lpips
from motionlab.video import read_video, write_mp4

COMPLETION, CONSISTENCY = "transition completion", "transition object consistency"


class Eyes(torch.nn.Module):
    """Stands in for Inception's TorchScript: four numbers of a picture."""

    def forward(self, x, return_features: bool = False):
        x = x.float()
        return torch.stack([x.mean((1, 2, 3)), x[:, 0].mean((1, 2)), x[:, 1].std((1, 2)), x[:, 2].amax((1, 2))], 1)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """AlexNet's trunk and LPIPS's weights, an Inception, CLIP: random ones."""
    from torchvision.models import alexnet

    top = tmp_path_factory.mktemp("files")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        trunk = alexnet(weights=None).features.state_dict()
        linear = {f"lin{k}.model.1.weight": torch.rand(1, n, 1, 1) for k, n in enumerate((64, 192, 384, 256, 256))}
    torch.save({f"features.{name}": value for name, value in trunk.items()}, top / "alexnet.pth")
    torch.save(linear, top / "alex.pth")
    torch.jit.script(Eyes()).save(str(top / "inception.pt"))
    encoders.clip_folder(top / "clip")
    return top


@pytest.fixture
def pairs(tmp_path):
    """Four pairs in a folder, one without its last picture, and clips of three of them."""
    data, gen = tmp_path / "data", tmp_path / "gen"
    data.mkdir(), gen.mkdir()
    rows = []
    for k, split in enumerate(("metamorphosis", "metamorphosis", "metamorphosis", "animation")):
        clip = videos.moving_texture(6, 64, 64, (k + 1, 0))
        iio.imwrite(data / f"{k}_a.png", clip[0]), iio.imwrite(data / f"{k}_b.png", clip[-1])
        rows.append({"first": f"{k}_a.png", "last": f"{k}_b.png", "text_first": "a cat", "text_last": "a dog", "split": split})
        if k != 3:
            write_mp4(gen / f"{k:03d}.mp4", clip, 8)
    rows[1]["last"] = "gone.png"
    write(data, rows)
    return data, gen


def write(data, rows):
    with open(data / "pairs.csv", "w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader(), table.writerows(rows)


def score(data, gen, out, *more, benchmark="morphbench"):
    return cli.main(["score", str(gen), "--benchmark", benchmark, "--data", str(data), "--out", str(out), *more])


def rows_of(out, name="scores"):
    return list(csv.DictReader((out / f"{name}.csv").read_text(encoding="utf-8").splitlines()))


def test_pairs_are_scored_and_gaps_are_listed(pairs, files, tmp_path, capsys):
    data, gen = pairs
    more = [f"-p{name}={files / file}" for name, file in (("alexnet", "alexnet.pth"), ("lpips", "alex.pth"), ("inception", "inception.pt"), ("clip", "clip"))]
    assert score(data, gen, tmp_path / "out", *more) == 0
    rows = rows_of(tmp_path / "out")
    assert [row["status"] for row in rows] == ["scored"] * 3 + ["missing"] and rows[3]["tier"] == "animation"
    assert float(rows[0]["psnr_first"]) > 20 and rows[1]["psnr_first"] == "" and rows[1]["tcr_clip"] == "" and rows[1]["tc_clip"] != ""
    steps = open_lpips(files / "alexnet.pth", files / "alex.pth").steps(read_video(gen / "000.mp4").frames)
    assert float(rows[0]["ppl"]) == pytest.approx(path_length(steps), rel=1e-4) and rows[0]["gaps"] == "5" and len(steps) == 5
    said = capsys.readouterr().out
    assert "1 prompts have no video" in said and "FID metamorphosis: " in said and "(2 pairs, 4 ends)" in said
    assert (tmp_path / "out" / "index.html").is_file()
    assert score(data, gen, tmp_path / "plain") == 0                                    # without any network: the ends alone
    said = capsys.readouterr().out
    assert "ppl, smooth, smooth_inverse, consistency, consistency_max, jump: empty. No files of LPIPS" in said and "FID: not computed" in said


def test_distances_join_across_batches_and_equal_frames_are_none(files, monkeypatch):
    from motionlab.models.pretrained import perceptual

    lpips, frames = open_lpips(files / "alexnet.pth", files / "alex.pth"), videos.moving_texture(7, 64, 64, (2, 1))
    whole = lpips.steps(frames)
    monkeypatch.setattr(perceptual, "BATCH", 3)
    assert np.allclose(lpips.steps(frames), whole, atol=1e-6) and (whole > 0).all() and (lpips.steps(frames[[0, 0]]) == 0).all()


def test_a_frechet_distance_as_published_is_not_shrunk(files):
    rng = np.random.default_rng(0)
    drawn, ends = rng.normal(size=(6, 2, 3)), rng.normal(1, 1, size=(6, 2, 3))
    a, b = drawn.reshape(-1, 3), ends.reshape(-1, 3)
    root = np.linalg.eigvals(np.cov(a.T) @ np.cov(b.T))
    by_hand = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(np.cov(a.T)) + np.trace(np.cov(b.T)) - 2 * np.sqrt(root.real.clip(0)).sum()
    assert fid_of_frames(drawn, ends) == pytest.approx(by_hand)
    assert open_inception(files / "inception.pt")(videos.moving_texture(3, 32, 32, (1, 0))).shape == (3, 4)


@pytest.fixture
def tcbench(tmp_path):
    """Two prompts, three clips, their answers."""
    data, gen = tmp_path / "tc", tmp_path / "tcgen"
    data.mkdir(), gen.mkdir()
    prompts = [{"id": 0, "prompt": "A pink chameleon turns green.", "type": "attribute binding", "video": []},
               {"id": 12, "prompt": "A leaf falls.", "type": "object binding", "video": []}]
    (data / "i2v_prompts.json").write_text(json.dumps(prompts))
    for name in ("00000-00000", "00000-00001", "00012-00000"):
        write_mp4(gen / f"{name}.mp4", videos.moving_texture(4, 32, 32, (1, 0)), 8)
    right, wrong = ([{"type": COMPLETION, "correct": yes, "frames": [1, 16], "question": "?"}, {"type": CONSISTENCY, "correct": 1}] for yes in (1, 0))
    answers = tmp_path / "answers.json"
    answers.write_text(json.dumps({"00000-00000": right, "00000-00001": wrong, "00012-00000": right, "00012-00001": right}))
    return data, gen, answers


def test_tcbench_scores_a_file_of_answers(tcbench, files, tmp_path, capsys):
    data, gen, answers = tcbench
    assert score(data, gen, tmp_path / "out", f"-panswers={answers}", benchmark="tcbench") == 0
    rows = rows_of(tmp_path / "out")
    assert [(row["prompt"], row["tcr"], row["tc_score"]) for row in rows] == [("00000", "100", "1"), ("00000", "0", "0.5"), ("00012", "100", "1")]
    summary = {row["tier"]: row for row in rows_of(tmp_path / "out", "summary")}
    assert summary["attribute binding"]["tcr"] == "50" and summary["object binding"]["tcr"] == "100"
    assert "1 clips with answers have no video: 00012-00001" in capsys.readouterr().out
    assert score(data, gen, tmp_path / "clip", f"-panswers={answers}", f"-pclip={files / 'clip'}", benchmark="tcbench") == 0
    row = rows_of(tmp_path / "clip")[1]
    ramp = min(1, max(0, (float(row["similarity"]) - 0.9) / 0.08))
    assert float(row["tc_score"]) == pytest.approx(ramp / 3, abs=1e-4)


def test_a_clip_without_answers_fails_alone(tcbench, tmp_path, capsys):
    data, gen, answers = tcbench
    write_mp4(gen / "00012-00007.mp4", videos.moving_texture(4, 32, 32, (1, 0)), 8)
    assert score(data, gen, tmp_path / "out", f"-panswers={answers}", benchmark="tcbench") != 0
    assert [row["status"] for row in rows_of(tmp_path / "out")].count("failed") == 1 and "No answers are about '00012-00007'" in capsys.readouterr().out


@pytest.mark.parametrize("change, says", [
    ({"split": "morph"}, "the split is 'morph'"), ({"text_last": ""}, "one text of two"), ({"name": "x"}, "two pairs of the name 'x'")])
def test_mistakes_in_pairs_are_named(pairs, change, says):
    data, _ = pairs
    rows = [dict(row) | change for row in csv.DictReader((data / "pairs.csv").read_text().splitlines())]
    write(data, rows)
    with pytest.raises(MotionLabError, match=says):
        read_pairs(data / "pairs.csv", ("metamorphosis", "animation"))


def test_missing_and_foreign_files_are_named_before_anything_long(pairs, files, tmp_path, capsys):
    data, gen = pairs
    with pytest.raises(MotionLabError, match="There is no"):
        read_pairs(tmp_path / "pairs.csv", ("animation",))
    (data / "pairs.csv").write_text("first,last\n")
    with pytest.raises(MotionLabError, match="lacks rows"):
        read_pairs(data / "pairs.csv", ("animation",))
    for text, says in (("[]", "holds no prompts"), ('[{"id": 1}]', "'prompt'"), ('[{"id": 1, "prompt": "x", "type": "y"}]', "type 'y'")):
        (tmp_path / "i2v_prompts.json").write_text(text)
        with pytest.raises(MotionLabError, match=says):
            read_prompts(tmp_path / "i2v_prompts.json")
    with pytest.raises(MotionLabError, match="one of its two files"):
        Settings(alexnet="x")
    with pytest.raises(MotionLabError, match="no file of AlexNet"):
        open_lpips(tmp_path / "none.pth", files / "alex.pth")
    with pytest.raises(MotionLabError, match="holds no AlexNet"):
        open_lpips(files / "alex.pth", files / "alex.pth")
    with pytest.raises(MotionLabError, match="holds no weights of LPIPS"):
        open_lpips(files / "alexnet.pth", files / "alexnet.pth")
    with pytest.raises(MotionLabError, match="no TorchScript"):
        open_inception(files / "alex.pth")
    with pytest.raises(MotionLabError, match="transitbench"):
        benchmark_class("transitbensh")
