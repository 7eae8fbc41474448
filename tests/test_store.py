"""Training data on disk: latents and sidecars of the world's clips or of a folder's, made once, never mixed."""
import numpy as np
import pytest
import torch

from motionlab.core.errors import MotionLabError
from motionlab.data import store
from motionlab.data.bank import BankConfig
from motionlab.data.sidecars import Sidecar
from motionlab.data.sources import Folder, World
from motionlab.flow_rgb import WORLD_SIGMA, flow_video
from motionlab.video import as_video, write_mp4
from small import small_model
from videos import moving_texture

WANTED = (Sidecar("stills"), Sidecar("motion", key="d1"))


@pytest.fixture(scope="module")
def pipe():
    return small_model(length=2)


@pytest.fixture
def world():
    return World(BankConfig("examples", clips=5, frames=5))


def quiet(text):
    return None


def test_batches_hold_latents_text_and_sidecars_of_the_same_clips(pipe, world, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "SHARD", 3)
    data = store.open_data(world, pipe, WANTED, tmp_path, quiet)
    batch, clip = data.batch(torch.tensor([4, 1])), world.clip(4)
    assert len(data) == 5 and {k: v.shape for k, v in batch.items() if k != "text"} == dict.fromkeys(("x1", "stills", "d1"), (2, 2, 4, 12, 12))
    assert torch.equal(batch["text"]["tokens"], pipe.text([world.captions[4], world.captions[1]])["tokens"]) and world.captions[4] == clip.caption
    for key, pictures in (("x1", clip.frames), ("d1", flow_video(clip.flow, WORLD_SIGMA))):
        torch.testing.assert_close(batch[key][0], pipe.encode_video(as_video(pictures)[None])[0], atol=2e-2, rtol=1e-2)
    alone = pipe.encode_video(as_video(clip.frames[4:5])[None])[0, 0]
    torch.testing.assert_close(batch["stills"][0, 1], alone, atol=2e-2, rtol=1e-2)
    assert not torch.allclose(batch["x1"][0, 1], alone, atol=2e-2)           # a clip's latent saw the frames before it


def test_they_are_made_once_and_a_new_sidecar_joins_the_old(pipe, world, tmp_path, monkeypatch):
    first = store.open_data(world, pipe, (), tmp_path, quiet)
    drawn = []
    monkeypatch.setattr(store, "_draw_part", lambda source, numbers, sidecars, draw=store._draw_part: drawn.append(sidecars) or draw(source, numbers, sidecars))
    more = store.open_data(world, pipe, WANTED, tmp_path, quiet)
    assert [[one.kind for one in part] for part in drawn] == [["stills", "motion"]]
    assert torch.equal(first.batch(torch.arange(5))["x1"], more.batch(torch.arange(5))["x1"])
    store.open_data(world, pipe, WANTED, tmp_path, quiet)
    assert len(drawn) == 1


def test_what_was_cut_short_is_made_again(pipe, world, tmp_path, monkeypatch):
    def killed(path, value):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store.np, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            store.open_data(world, pipe, (), tmp_path, quiet)
    assert not list(tmp_path.rglob("*.npy")) and len(store.open_data(world, pipe, (), tmp_path, quiet)) == 5


def test_entries_of_other_clips_or_another_maker_are_refused(pipe, world, tmp_path):
    store.open_data(world, pipe, (), tmp_path, quiet)
    manifest = next(tmp_path.rglob("manifest.json"))
    whole = manifest.read_text()
    for old, new, says in ((world.hash(), "0" * 12, "other clips"), (Sidecar("x1").about()["maker"], "0" * 12, "another version of its maker")):
        manifest.write_text(whole.replace(old, new))
        with pytest.raises(MotionLabError, match=says):
            store.open_data(world, pipe, (), tmp_path, quiet)
    manifest.write_text(whole)
    assert len(store.open_data(world, pipe, (), tmp_path, quiet)) == 5


def test_teachers_of_motion(world):
    def draw(**settings):
        return Sidecar("motion").draw(world, 2, **settings)

    exact = draw()
    assert np.array_equal(draw(teacher="other"), flow_video(world.clip(4).flow, WORLD_SIGMA)) and (draw(teacher="still") == 255).all()
    assert np.array_equal(draw(noise=0.5), draw(noise=0.5)) and not np.array_equal(draw(noise=0.5), exact)
    assert not np.array_equal(draw(teacher="dis"), exact)
    with pytest.raises(MotionLabError, match="Did you mean 'exact'"):
        draw(teacher="exakt")


def test_a_folder_of_videos_with_captions(pipe, tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    for name, step in (("a", (-2, 0)), ("b", (1, 1))):
        write_mp4(videos / f"{name}.mp4", moving_texture(8, 48, 64, step), 16)
    (videos / "captions.csv").write_text('file,caption\na.mp4,"a red dog runs to the left over the meadow"\nb.mp4,"a blue fish swims to the right under the sea"\n')
    folder = Folder(videos, 5, (48, 48))
    data = store.open_data(folder, pipe, (Sidecar("motion", {"teacher": "dis"}, "d1"),), tmp_path / "data", quiet)
    assert len(data) == 2 and data.batch(torch.tensor([1]))["d1"].shape == (1, 2, 4, 12, 12)
    assert len(data.where(lambda caption: "fish" in caption)) == 1
    with pytest.raises(MotionLabError, match="without exact flow"):
        store.open_data(folder, pipe, (Sidecar("motion", {"teacher": "exact"}),), tmp_path / "data", quiet)
    with pytest.raises(MotionLabError, match="has 8 of the 9 frames"):
        store.open_data(Folder(videos, 9, (48, 48)), small_model(length=3), (), tmp_path / "data", quiet)
    write_mp4(videos / "a.mp4", moving_texture(8, 48, 64, (5, 5)), 16)
    with pytest.raises(MotionLabError, match="other clips"):
        store.open_data(Folder(videos, 5, (48, 48)), pipe, (), tmp_path / "data", quiet)
