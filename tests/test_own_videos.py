"""A sweep over a generator and videos of one's own, judged by videos that it was not trained on; every class is in test_tuning.py."""
import pytest
import yaml

from motionlab import cli
from motionlab.core.errors import MotionLabError
from motionlab.data.sources import Folder
from motionlab.experiments import own_videos
from motionlab.video import write_mp4
from snapshots import CLIP, wan_snapshot
from videos import moving_texture

LORA = {"name": "lora", "method": "lora", "rank": 2, "train": {"lr": 1e-30, "steps": 1}}


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for name, step in (("a", (-3, 0)), ("b", (2, 1)), ("c", (1, -2))):
        write_mp4(folder / f"{name}.mp4", moving_texture(12, 48, 64, step), 16)
    (folder / "captions.csv").write_text("file,caption\na.mp4,a cat walks.\nb.mp4,a dog runs.\nc.mp4,a fish swims.\n")
    return folder


def asked(folder, videos, clip, **more):
    frames, height, width = clip
    return {"weights": str(folder), "videos": str(videos), "held_out": 1, "frames": frames, "height": height, "width": width, "fps": 16.0,
            "draws": 4} | more


def test_the_parts_of_a_folder_share_no_video(videos):
    parts = {n: Folder(videos, 9, (32, 32), 16.0, leave_out=n) for n in (0, 1, -1)}
    assert [parts[n].files for n in parts] == [["a.mp4", "b.mp4", "c.mp4"], ["a.mp4", "b.mp4"], ["c.mp4"]]
    assert len({part.hash() for part in parts.values()}) == len({part.name for part in parts.values()}) == 3


def test_a_sweep_file_of_ones_own_is_read_by_the_usual_command(videos, tmp_path, capsys):
    file, common = tmp_path / "mine" / "ablations.yaml", asked(wan_snapshot(tmp_path / "s"), videos, CLIP)
    file.parent.mkdir()
    text = own_videos.__doc__.partition("\n\n")[2]
    values = yaml.safe_load(text) | {"common": common}
    file.write_text(yaml.safe_dump(values))
    assert cli.main(["sweep", str(file), "--out", str(tmp_path / "out"), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "mine  tier full: 3 rows" in said                                                    # one as it is, two ranks


def test_draws_are_the_same_for_every_arm(videos, tmp_path):
    """An arm whose rate is next to nothing has the losses of the generator as it is."""
    common, place = asked(wan_snapshot(tmp_path / "s"), videos, CLIP), tmp_path / "sweep" / "mine" / "full"
    base, lora = (own_videos.run_row(arm, 0, place / arm["name"], "full", **common)[0] for arm in ({"name": "as_it_is"}, LORA))
    again, = own_videos.run_row(LORA, 0, place / "again", "full", **common | {"draws": 2})
    assert base["loss"] == pytest.approx(lora["loss"], rel=1e-5) and again["loss"] != lora["loss"]
    assert len(list((tmp_path / "sweep" / "trained" / "lora-on-your-videos").iterdir())) == 1             # one training for both


@pytest.mark.parametrize("change, message", [
    ({"held_out": 3}, "Of the 3 videos"), ({"held_out": 0}, "held_out is 0"), ({"videos": "nowhere"}, "There is no folder"),
    ({"weights": "nowhere"}, "There is no folder"), ({"drawss": 3}, "Did you mean 'draws'"), ({"videos": ""}, "no videos")])
def test_what_is_missing_is_said_before_anything_is_trained(videos, tmp_path, change, message):
    with pytest.raises(MotionLabError, match=message):
        own_videos.check_arm(LORA, asked(wan_snapshot(tmp_path / "s"), videos, CLIP) | change)
