"""VideoJAM on snapshots of Wan and CogVideoX: both halves at the border, then from videos to sampled clips."""

import math
import shutil
import signal
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import PartialState
from accelerate.commands.config.config_args import load_config_from_file
from safetensors.torch import load_file
from snapshots import CHANNELS, cogvideox_snapshot, wan_snapshot
from videos import moving_texture

from motionlab import cli, doctor
from motionlab.diffusion import interpolate, velocity, velocity_from_v
from motionlab.core.errors import MotionLabError
from motionlab.experiments.videojam import snapshot as J
from motionlab.models import size as sizes
from motionlab.models.pretrained.snapshot import PretrainedCodec, Prompts, load_pretrained
from motionlab.papers.videojam import Guidance, JointBackbone, inner_guidance, widen
from motionlab.training import SampleNoise, checkpoints
from motionlab.video import as_video, read_video, write_mp4

KINDS = ("wan", "cogvideox")
CLIP, FPS = (9, 32, 32), 16
CAPTIONS = "file,caption\nleft.mp4,a cat walks.\nright.mp4,a dog runs.\n"
PROMPTS = "prompt,category\na cat walks.,basic\na wheel turns.,rotational motion\n"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("snapshots")
    return {"wan": wan_snapshot(root / "wan"), "cogvideox": cogvideox_snapshot(root / "cogvideox")}


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for name, step in (("left", (-3, 0)), ("right", (2, 1))):
        write_mp4(folder / f"{name}.mp4", moving_texture(12, 48, 64, step), FPS)
    (folder / "captions.csv").write_text(CAPTIONS)
    return folder


@pytest.fixture(autouse=True)
def known_speed(monkeypatch):
    monkeypatch.setattr(doctor, "speed", lambda device, seconds: {"bf16": 0.5})
    monkeypatch.setattr(J, "find_raft_weights", lambda: None)


@pytest.fixture
def config(folders, videos, tmp_path):
    def build(kind="wan", **changes):
        return J.JointConfig(
            **dict(
                backbone=str(folders[kind]),
                videos=str(videos),
                out_dir=str(tmp_path / "run"),
                frames=9,
                height=32,
                width=32,
                fps=FPS,
                steps=2,
                batch_size=2,
                log_every=1,
                bf16=False,
                cpu=True,
            )
            | changes
        )

    return build


def load(folder, dtype=torch.float32):
    return load_pretrained(folder, dtype=dtype, clip=CLIP)


def latents(seed, b=2):
    return torch.randn(b, 3, CHANNELS, 4, 4, generator=torch.Generator().manual_seed(seed))


T = torch.tensor([0.2, 0.7])


# --- both halves at the border of conventions


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_a_widened_snapshot_starts_as_the_base_to_the_bit_whatever_the_motion_is(folders, kind, dtype):
    model, x = load(folders[kind], dtype), latents(1)
    tokens = model.backbone.grammar.encode(["a cat.", "a dog."])
    with torch.no_grad():
        base = model.backbone(x, T, tokens)
        joint = JointBackbone(model.backbone)
        for d in (torch.zeros_like(x), latents(2), 1e4 * latents(3), x):
            assert torch.equal(joint(x, d, T, tokens)[0], base)


@pytest.mark.parametrize("kind", KINDS)
def test_copied_columns_give_both_halves_the_same_conversion(folders, kind):
    """The network says one v for both: CogVideoX's velocities differ by s (alpha - sigma) (d - x), Wan's not."""
    model, x, d = load(folders[kind]), latents(1), latents(2)
    joint, tokens = JointBackbone(model.backbone, "copy"), model.backbone.grammar.encode(["a cat.", "a dog."])
    with torch.no_grad():
        assert torch.equal(*joint(x, x, T, tokens))
        u_x, u_d = joint(x, d, T, tokens)
    t = T.view(-1, 1, 1, 1, 1)
    direct = 0 if kind == "wan" else (2 * t - 1) / (t**2 + (1 - t) ** 2)
    torch.testing.assert_close(u_d - u_x, direct * (d - x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_perfect_network_gives_both_velocities(folders, kind, monkeypatch):
    """It sees both states of its own convention at one noise level and says both targets: ours must come out."""
    model = load(folders[kind])
    joint, (x0, x1, d0, d1), parts = JointBackbone(model.backbone), map(latents, range(4)), model.training_parts()

    def perfect(z, timestep, text):
        states = [parts.state(interpolate(a0, a1, T), T) for a0, a1 in ((x0, x1), (d0, d1))]
        torch.testing.assert_close(z, torch.cat(states, 2))
        return torch.cat([parts.target(x0, x1, T), parts.target(d0, d1, T)], 2)

    monkeypatch.setattr(model.backbone, "native", perfect)
    u_x, u_d = joint(interpolate(x0, x1, T), interpolate(d0, d1, T), T, model.backbone.grammar.encode(["", ""]))
    torch.testing.assert_close(u_x, velocity(x0, x1))
    torch.testing.assert_close(u_d, velocity(d0, d1))


def test_guided_appearance_is_the_same_whether_v_or_velocity_is_combined(folders):
    """For x, which is one state in all passes, guidance commutes with CogVideoX's conversion; w1 = 5 and w2 = 3."""
    model, x, d, t = load(folders["cogvideox"]), latents(1, 1), latents(2, 1), torch.tensor([0.1])
    joint, seen, native = JointBackbone(model.backbone, "copy"), [], model.backbone.native
    with torch.no_grad():
        weight = model.transformer.patch_embed.proj.weight  # drawn, so that motion matters
        weight.add_(0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(3)))
        model.backbone.native = lambda *a: seen.append(native(*a)) or seen[-1]
        u = inner_guidance(joint, model.backbone.grammar.encode("a cat."), Guidance(5.0, 3.0))(torch.cat([x, d], 2), t)
    full, no_text, no_motion = seen[0][:, :, :CHANNELS].chunk(3)
    assert not torch.allclose(full, no_motion, atol=1e-3)
    torch.testing.assert_close(
        u[:, :, :CHANNELS], velocity_from_v(9 * full - 5 * no_text - 3 * no_motion, x, t), atol=1e-4, rtol=1e-4
    )


def test_training_times_are_those_of_the_base(folders):
    noise, wan, cogvideox = SampleNoise(0, 0, range(400)), load(folders["wan"]), load(folders["cogvideox"])
    z = torch.logit(J.training_times(wan)(noise)) + math.log(3.0)  # logit-normal, shifted by 3
    assert abs(z.mean()) < 0.15 and abs(z.std() - 1) < 0.1
    timesteps = cogvideox.backbone.border(None).timestep(J.training_times(cogvideox)(noise)) / 1000
    assert (timesteps.sort().values - torch.linspace(0, 1, 400)).abs().max() < 0.08  # Kolmogorov: p = 0.01


# --- clips


def test_a_pair_is_the_encoded_frames_and_the_encoded_flow_picture():
    frames, still = moving_texture(5, 16, 16), np.zeros((4, 2, 16, 16), np.float32)
    fast = still + np.array([-100, 0], np.float32)[:, None, None]  # beyond saturation: pure red or cyan
    pair = J.encode_pair(lambda video: video, frames, still)
    assert torch.equal(pair["x1"], as_video(frames).half()) and (pair["d1"] == 1).all()
    moving = J.encode_pair(lambda video: video, frames, fast)["d1"]
    assert moving.shape == (5, 3, 16, 16) and torch.equal(
        moving[:, :, 0, 0], torch.tensor([[1.0, -1, -1]]).half().expand(5, 3)
    )


@pytest.mark.parametrize(
    "frames, flow, message",
    [
        (5, np.full((4, 2, 16, 16), np.nan), "not finite"),
        (5, np.zeros((4, 2, 8, 8)), r"shape \(4, 2, 8, 8\), the clip's is \(4, 2, 16, 16\)"),
        (5, np.zeros((3, 2, 16, 16)), r"shape \(3, 2"),
        (1, np.zeros((0, 2, 16, 16)), "one frame has no motion"),
    ],
)
def test_flow_that_is_not_the_clips_is_refused(frames, flow, message):
    with pytest.raises(MotionLabError, match=message) as caught:
        J.encode_pair(lambda video: video, moving_texture(frames, 16, 16), flow)
    assert caught.value.fix


def test_captions_come_from_the_table_or_from_beside_the_video(videos, tmp_path):
    folder = shutil.copytree(videos, tmp_path / "videos")
    assert [(v.name, c) for v, c in J.find_clips(folder)] == [
        ("left.mp4", "a cat walks."),
        ("right.mp4", "a dog runs."),
    ]
    (folder / "captions.csv").unlink()
    for name in ("left", "right"):
        (folder / f"{name}.txt").write_text(f"a {name} turn.\n")
    assert [c for _, c in J.find_clips(folder)] == ["a left turn.", "a right turn."]


@pytest.mark.parametrize(
    "captions, message",
    [
        ("file,caption\nleft.mp4,a cat.\n", "1 of 2 videos .* no caption, first 'right.mp4'"),
        (CAPTIONS + "rigth.mp4,a cow.\n", "names 'rigth.mp4', which is not .* Did you mean 'right.mp4'"),
        ("video,text\nleft.mp4,a cat.\n", "cannot be read as captions .'file'"),
        (None, "2 of 2 videos"),
    ],
)
def test_mistakes_in_captions_are_told(videos, tmp_path, captions, message):
    folder = shutil.copytree(videos, tmp_path / "videos")
    (folder / "captions.csv").write_text(captions) if captions else (folder / "captions.csv").unlink()
    with pytest.raises(MotionLabError, match=message):
        J.find_clips(folder)


def test_a_folder_without_videos_is_told(tmp_path):
    with pytest.raises(MotionLabError, match=r"holds no \*.mp4"):
        J.find_clips(tmp_path)
    with pytest.raises(MotionLabError, match="There is no folder"):
        J.find_clips(tmp_path / "none")


def test_what_a_notebook_would_miss_in_its_last_section_is_told_first(folders, videos, tmp_path):
    J.check_inputs(str(folders["wan"]), str(videos))
    for backbone, clips, message in ((tmp_path / "none", videos, "There is no folder"), (folders["wan"], "", "but no videos"), (folders["wan"], tmp_path, "holds no")):
        with pytest.raises(MotionLabError, match=message):
            J.check_inputs(str(backbone), str(clips))
    weights = tmp_path / "joint.safetensors"
    for found, given, message in ((False, "none.txt", "No joint model at"), (True, "none.txt", "No prompt file at"), (True, "", "No prompt file at")):
        if found:
            weights.touch()
        with pytest.raises(MotionLabError, match=message):
            J.check_sampling(str(folders["wan"]), str(weights), given)


@pytest.mark.parametrize(
    "frames, fps, message",
    [(1, FPS, "'odd.mp4' has 1 of the 9 frames"), (12, 8, "'odd.mp4' has 8 frames per second: at 16")],
)
def test_a_video_that_is_too_short_or_too_slow_is_named(config, videos, tmp_path, frames, fps, message):
    folder = shutil.copytree(videos, tmp_path / "videos")
    write_mp4(folder / "odd.mp4", moving_texture(frames, 48, 64), fps)
    (folder / "odd.txt").write_text("odd.")
    with pytest.raises(MotionLabError, match=message):
        J.train_joint(config(videos=str(folder)))
    assert not (tmp_path / "run" / "joint.yaml").exists()  # nothing is settled yet: other fps may be tried


def test_raft_is_taken_where_its_weights_are_and_bad_flow_names_the_video(config, monkeypatch, capsys):
    asked, model = [], load(config().backbone)
    monkeypatch.setattr(J, "find_raft_weights", lambda: Path("raft_large.pth"))
    monkeypatch.setattr(
        J,
        "flow",
        lambda frames, teacher, **options: asked.append((teacher, options)) or np.full((8, 2, 32, 32), np.nan),
    )
    with pytest.raises(MotionLabError, match="left.mp4: The flow holds values that are not finite"):
        J.prepare(model, J.find_clips(config().videos), config(), CLIP, PartialState(cpu=True))
    assert asked == [("raft", {"device": "cpu"})] and "flow teacher: raft (raft_large.pth)" in capsys.readouterr().out


# --- from videos to clips


def forbid(monkeypatch, owner, name):
    def called(*args, **options):
        raise AssertionError(f"{name} was called again")

    monkeypatch.setattr(owner, name, called)


def interrupted(monkeypatch, config):
    """Ctrl-C while the first batch is read."""
    batch = J.JointClips.batch
    with monkeypatch.context() as patch:
        patch.setattr(
            J.JointClips, "batch", lambda self, indices: signal.raise_signal(signal.SIGINT) or batch(self, indices)
        )
        with pytest.raises(KeyboardInterrupt):
            J.train_joint(config)


@pytest.mark.parametrize("kind", KINDS)
def test_videos_become_a_joint_model_and_prompts_become_clips(config, kind, monkeypatch, tmp_path, capsys):
    rows = []
    run = types.SimpleNamespace(log=lambda row, step: rows.append(step), finish=lambda: None)
    fake = types.SimpleNamespace(init=lambda **options: rows.append(options["name"]) or run)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setenv("WANDB_MODE", "online")
    whole = J.train_joint(config(kind))
    assert rows == ["run", 1, 2]  # mirrored under the folder's name
    said = capsys.readouterr().out
    assert (
        "of them for motion" in said
        and "This run, 2 steps on 1 device\n" in said
        and "flow teacher: dis (no RAFT" in said
    )

    monkeypatch.setenv("WANDB_MODE", "disabled")
    cut = config(kind, out_dir=str(tmp_path / "cut"))
    interrupted(monkeypatch, cut)
    assert [p.name for p in checkpoints(tmp_path / "cut")] == ["step_00000001"]
    with monkeypatch.context() as patch:
        forbid(patch, PretrainedCodec, "encode")
        forbid(patch, Prompts, "_work_out")
        again = J.train_joint(cut)
    first, second = load_file(whole), load_file(again)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    average = load_file(checkpoints(tmp_path / "run")[-1] / "ema.safetensors")
    assert all(torch.equal(first[name.removeprefix("base.")], value.bfloat16()) for name, value in average.items())

    (tmp_path / "prompts.csv").write_text(PROMPTS)
    sampling = J.SampleConfig(
        backbone=config(kind).backbone,
        weights=str(whole),
        prompts=str(tmp_path / "prompts.csv"),
        out_dir=str(tmp_path / "clips"),
        steps=2,
        cpu=True,
    )
    paths = J.sample_joint(sampling)
    check_clips(paths)
    forbid(monkeypatch, J, "joint_video")
    assert J.sample_joint(sampling) == paths  # all there: nothing is generated again
    with pytest.raises(MotionLabError, match="holds clips of other settings or weights"):
        J.sample_joint(J.SampleConfig(**vars(sampling) | {"w2": 0.0}))


def check_clips(paths):
    clips = [read_video(path) for path in paths]
    both = [read_video(path.with_stem(f"{path.stem}_motion")).frames for path in paths]
    assert (
        [c.frames.shape for c in clips] == 2 * [(9, 32, 32, 3)]
        and clips[0].fps == FPS
        and [b.shape for b in both] == 2 * [(9, 32, 64, 3)]
    )
    assert not np.array_equal(clips[0].frames, clips[1].frames)
    left, right = (b.astype(float) - c.frames for b, c in zip((both[0][:, :, :32], both[0][:, :, 32:]), 2 * [clips[0]]))
    assert np.abs(left).mean() < np.abs(right).mean()  # the video again, but for the encoder's loss; then its motion
    assert paths[0].with_name("prompts.csv").read_text() == (
        "file,category,prompt\n000.mp4,basic,a cat walks.\n001.mp4,rotation,a wheel turns.\n"
    )


def test_a_folder_keeps_to_one_run(config, tmp_path):
    (tmp_path / "run").mkdir()
    from motionlab.core.config import to_yaml

    (tmp_path / "run" / "joint.yaml").write_text(to_yaml(config()))
    with pytest.raises(MotionLabError, match="belongs to another run: lr was 5e-06 and is now 0.001"):
        J.train_joint(config(lr=1e-3, steps=7))


# --- mistakes


@pytest.mark.parametrize(
    "values, message",
    [
        ({"frames": 1}, "one frame has no motion"),
        ({"flow": "rafft"}, "Did you mean 'raft'"),
        ({"new": "zeros"}, "Did you mean 'zero'"),
        ({"text_dropout": 1.5}, "text_dropout is 1.5"),
        ({"steps": 0}, "steps must be more than 0"),
        ({"fps": -1.0}, "fps is -1"),
    ],
)
def test_bad_settings_of_a_training_are_named(config, values, message):
    with pytest.raises(MotionLabError, match=message):
        config(**values)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"interval_end": 1.5}, r"interval \(0.0, 1.5\) does not lie in \[0, 1\]"),
        ({"interval_start": -0.1}, "does not lie"),
        ({"rule": "iner"}, "Did you mean 'inner'"),
        ({"steps": 0}, "A sampler of 0 steps"),
    ],
)
def test_bad_settings_of_a_sampler_are_named(values, message):
    with pytest.raises(MotionLabError, match=message):
        J.SampleConfig(**values)


@pytest.mark.parametrize(
    "kind, frames, message", [("wan", 10, r"lengths are 1 \+ 4k"), ("cogvideox", 13, r"lengths are 1 \+ 8k")]
)
def test_a_length_that_the_snapshot_does_not_do_is_told_first(config, kind, frames, message):
    with pytest.raises(MotionLabError, match=message):
        J.train_joint(config(kind, frames=frames))


def test_an_unknown_category_is_told_before_anything_is_loaded(tmp_path):
    (tmp_path / "bench.csv").write_text("prompt,category\na cat.,rotatoin\n")
    with pytest.raises(
        MotionLabError, match="bench.csv, prompt 1: Unknown category 'rotatoin'. Did you mean 'rotation'"
    ):
        J.sample_joint(J.SampleConfig(prompts=str(tmp_path / "bench.csv"), out_dir=str(tmp_path / "clips")))


def test_a_backbone_without_the_projection_is_refused(folders):
    model = load(folders["wan"])
    model.transformer.patch_embedding = torch.nn.Identity()
    with pytest.raises(
        MotionLabError, match="has none of the projections .*patch_embedding.*\n.*Use CogVideoX, Wan or LTX"
    ):
        JointBackbone(model.backbone)


def test_weights_of_something_else_are_refused(folders, tmp_path):
    def load_weights(**values):
        J.load_joint(J.SampleConfig(weights=str(tmp_path / "w.safetensors"), cpu=True, out_dir=str(tmp_path), **values))

    with pytest.raises(MotionLabError, match="No joint model at .*\n.*motionlab train videojam"):
        load_weights()
    (tmp_path / "w.safetensors").write_bytes(b"half")
    with pytest.raises(MotionLabError, match="may be truncated"):
        load_weights()
    model = load(folders["wan"])
    J.save_model(
        model.backbone, tmp_path / "w.safetensors", J.KIND, pipeline="wan", vae="another", size="[9, 32, 32]", fps=16
    )
    with pytest.raises(MotionLabError, match="trained with the pipeline wan, .* has cogvideox"):
        load_weights(backbone=str(folders["cogvideox"]))
    with pytest.raises(MotionLabError, match="trained with the vae another"):
        load_weights(backbone=str(folders["wan"]))


# --- commands, sizes, accelerate


def test_the_command_line_fills_the_config(monkeypatch, tmp_path, capsys):
    seen = []
    monkeypatch.setattr(J, "train_joint", seen.append)
    (tmp_path / "c.yaml").write_text("videos: clips\nlr: 1e-6\nsteps: 5\n")
    assert (
        cli.main(
            [
                "train",
                "videojam",
                "--backbone",
                "wan",
                "--out",
                "o",
                "--config",
                str(tmp_path / "c.yaml"),
                "--steps",
                "9",
                "-p",
                "bf16=false",
            ]
        )
        == 0
    )
    assert seen == [J.JointConfig(backbone="wan", videos="clips", out_dir="o", lr=1e-6, steps=9, bf16=False)]
    for words, says in (
        (["train", "videojm"], "Did you mean 'videojam'"),
        (["train", "videojam", "--backbone", "b"], "--videos is missing"),
        (
            [
                "sample",
                "videojam",
                "--backbone",
                "b",
                "--weights",
                "w",
                "--prompts",
                "p",
                "--out",
                "o",
                "-p",
                "interval_edn=1",
            ],
            "Did you mean 'interval_end'",
        ),
    ):
        assert cli.main(words) == 2 and says in capsys.readouterr().err


@pytest.mark.parametrize("kind", KINDS)
def test_the_size_of_a_joint_model_is_the_real_ones(folders, kind):
    model = load(folders[kind])
    before = sum(p.numel() for p in model.transformer.parameters())
    JointBackbone(model.backbone)
    size, plain = sizes.measure(str(folders[kind]), *CLIP, widen=widen), sizes.measure(str(folders[kind]), *CLIP)
    assert (
        size.parameters == sum(p.numel() for p in model.transformer.parameters()) == before + size.added
        and size.added > 0
    )
    assert plain.added == 0 and size.tokens == plain.tokens and plain.flops < size.flops < 1.2 * plain.flops


def test_the_size_command_counts_the_joint_model(capsys):
    assert cli.main(["size", "videojam", "--backbone", "small", "--tflops", "1"]) == 0
    said = capsys.readouterr().out
    assert "0.00924 M of them for motion" in said and "of video and of motion" in said  # 2 x 24 x 192 + 24 = 9 240
    assert cli.main(["size", "videojm"]) == 2 and "Did you mean 'videojam'" in capsys.readouterr().err


def test_accelerate_reads_its_config():
    config = load_config_from_file(str(Path(__file__).parents[1] / "reproductions" / "videojam" / "accelerate.yaml"))
    assert (
        config.num_processes == 8 and config.mixed_precision == "bf16" and config.distributed_type.value == "MULTI_GPU"
    )
