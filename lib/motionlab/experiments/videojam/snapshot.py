"""VideoJAM at paper size: joint fine-tuning of a Wan 2.1 or CogVideoX snapshot on a folder of videos, and sampling.

    train_joint(JointConfig(backbone="Wan2.1-T2V-1.3B-Diffusers", videos="clips", out_dir="runs/wan"))
    sample_joint(SampleConfig(backbone=..., weights="runs/wan/joint.safetensors", prompts="bench.csv", out_dir="out"))

In the order of the work: videos and their captions (`find_clips`), each with its flow picture encoded once and kept
(`prepare`), the joint training (`train_joint`), generated clips (`sample_joint`). What is finished is never done again:
clips lie in out_dir/clips, text states in out_dir/text, the training's checkpoints in out_dir/checkpoints. With several
processes (`accelerate launch`) each encodes its share and trains its share of every batch.
"""
from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch

from motionlab.core.config import from_yaml, to_yaml
from motionlab.diffusion import SAMPLERS
from motionlab.core.errors import MotionLabError, nearest, one_of
from motionlab.data.prompts import read_prompts
from motionlab.core.files import ensure_writable, save_weights, write_atomic
from motionlab.flow_rgb import SIGMA
from motionlab.models.checkpoint import fill, fingerprint, read_model, save_model
from motionlab.core.noise import prompt_noise
from motionlab.models.pretrained.snapshot import Pretrained, component_fingerprint, latent_size, load_pretrained, snapshot_kind
from motionlab.papers.videojam import (Guidance, JointBackbone, JointRecipe, inner_guidance, joint_training_loss,
                                       motion_latent, split, widen)
from motionlab.teachers.flow import find_raft_weights, flow
from motionlab.training import TrainConfig, train
from motionlab.video import RealClip, as_frames, as_video, read_video, write_mp4

KIND = "motionlab.joint_pretrained"
TEACHERS = ("auto", "raft", "dis")
FPS = {"wan": 16.0, "cogvideox": 8.0}        # of the videos that they were made for
MAY_CHANGE = ("out_dir", "steps", "checkpoint_every", "log_every", "gradient_checkpointing", "cpu")
PATIENCE = timedelta(hours=12)               # for other processes to finish encoding; the usual limit is 10 minutes


# --- settings

@dataclass(frozen=True)
class JointConfig:
    """A joint fine-tune. Defaults are the paper's where it states them (card, section 3); 0 means the snapshot's own.

    backbone: folder of the snapshot. videos: folder with *.mp4 and captions, see `find_clips`.
    frames, height, width, fps: of the clips; of each video the first `frames` frames at `fps` are taken.
    flow: "raft", "dis", or "auto": RAFT where torchvision's weights are on disk. sigma: of the flow picture (Eq. 5).
    new: start of the new output columns. text_dropout, motion_dropout, motion_weight: see `JointRecipe`.
    batch_size: over all processes; the paper's is 32. steps: the paper's are 50 000 of that. lr: constant, no warm-up,
    since the start is the base. ema: of the weights that are kept at the end (not stated).
    gradient_checkpointing: less memory for a third more time. bf16: autocast over float32 weights.

    Raises:
        MotionLabError: a value out of range.
    """

    backbone: str = ""
    videos: str = ""
    out_dir: str = "runs/videojam"
    frames: int = 0
    height: int = 0
    width: int = 0
    fps: float = 0.0
    flow: str = "auto"
    sigma: float = SIGMA
    new: str = "zero"
    text_dropout: float = 0.3
    motion_dropout: float = 0.2
    motion_weight: float = 1.0
    steps: int = 2000
    batch_size: int = 8
    lr: float = 5e-6
    ema: float = 0.999
    gradient_checkpointing: bool = True
    bf16: bool = True
    checkpoint_every: int = 200
    log_every: int = 10
    seed: int = 0
    cpu: bool = False

    def __post_init__(self):
        one_of(self.flow, TEACHERS, "flow teacher")
        one_of(self.new, ("zero", "copy"), "start of the new output columns")
        for name in ("frames", "height", "width", "fps"):
            _require(getattr(self, name) >= 0, f"{name} is {getattr(self, name)}", "Give 0 for the snapshot's own.")
        for name in ("text_dropout", "motion_dropout"):
            _require(0 <= getattr(self, name) <= 1, f"{name} is {getattr(self, name)}", "Give a probability.")
        _require(self.frames != 1, "A clip of one frame has no motion", "Give more frames, for example 17.")
        self.training()

    def training(self) -> TrainConfig:
        """Settings of the training loop; errors as there."""
        return TrainConfig(steps=self.steps, batch_size=self.batch_size, lr=self.lr, warmup=0, ema=self.ema,
                           bf16=self.bf16, checkpoint_every=self.checkpoint_every, log_every=self.log_every,
                           seed=self.seed, cpu=self.cpu, out_dir=self.out_dir)


@dataclass(frozen=True)
class SampleConfig:
    """Clips of a joint model by Inner-Guidance, on the snapshot's own grid.

    weights: joint.safetensors of `train_joint`. prompts: a file of `read_prompts`.
    w1, w2, motion_half, rule: see `Guidance`. interval_start, interval_end: of t in which w2 acts. The paper's first
    half of the steps is t < 0.25 on the grids of Wan at 480p and of CogVideoX-2B, t < 0.36 on that of CogVideoX-5B.
    steps: of the sampler. batched: False takes the passes of a step one after the other: slower, with less memory.
    seed: of the starting noise.

    Raises:
        MotionLabError: unknown rule or motion half, an interval outside [0, 1], no steps.
    """

    backbone: str = ""
    weights: str = ""
    prompts: str = ""
    out_dir: str = "runs/videojam_samples"
    w1: float = 5.0
    w2: float = 3.0
    interval_start: float = 0.0
    interval_end: float = 0.25
    motion_half: str = "literal"
    rule: str = "inner"
    steps: int = 50
    batched: bool = True
    bf16: bool = True
    seed: int = 0
    cpu: bool = False

    def __post_init__(self):
        _require(self.steps > 0, f"A sampler of {self.steps} steps", "Give 1 or more, for example 50.")
        self.guidance()

    def guidance(self) -> Guidance:
        """The rule and its weights; errors as there."""
        return Guidance(self.w1, self.w2, (self.interval_start, self.interval_end), self.motion_half, self.rule,
                        self.batched)


def _require(holds, what, fix):
    if not holds:
        raise MotionLabError(f"{what}.", fix=fix)


# --- videos and captions

def check_inputs(backbone: str, videos: str) -> None:
    """Refuse a snapshot or videos that are not there before minutes of other work.

    Raises:
        MotionLabError: as `snapshot_kind` and `find_clips`; no videos given.
    """
    snapshot_kind(Path(backbone))
    _require(videos, "A backbone is given, but no videos", "Give a folder of *.mp4 with captions.csv: -p videos=FOLDER.")
    find_clips(videos)


def find_clips(folder: str | Path) -> list[tuple[Path, str]]:
    """(video, caption) of all *.mp4 in a folder, by name.

    Captions are the rows of captions.csv in it (columns file and caption), or NAME.txt beside NAME.mp4.

    Raises:
        MotionLabError: no such folder, no videos, a video without caption, a caption without video.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise MotionLabError(f"There is no folder '{folder}'.", fix="Give the folder that holds the videos.")
    videos, rows = sorted(folder.glob("*.mp4")), _read_captions(folder / "captions.csv")
    _require(videos, f"'{folder}' holds no *.mp4", "Put the videos into it; ffmpeg rewrites other kinds of files.")
    names = [video.name for video in videos]
    for name in rows:
        if name not in names:
            raise MotionLabError(f"captions.csv names '{name}', which is not in '{folder}'.{nearest(name, names)}",
                                 fix="Correct the name, or take the row out.")
    clips = [(video, (rows.get(video.name) or _sidecar(video)).strip()) for video in videos]
    bare = [video.name for video, caption in clips if not caption]
    if bare:
        raise MotionLabError(f"{len(bare)} of {len(clips)} videos in '{folder}' have no caption, first '{bare[0]}'.",
                             fix=f"Add a row to captions.csv (file, caption), or {Path(bare[0]).stem}.txt beside it.")
    return clips


def _read_captions(path):
    if not path.is_file():
        return {}
    try:
        rows = csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines())
        return {row["file"]: row["caption"] or "" for row in rows}
    except (KeyError, csv.Error, UnicodeDecodeError) as error:
        raise MotionLabError(f"'{path}' cannot be read as captions ({error}).",
                             fix="Its columns are file and caption.") from None


def _sidecar(video):
    text = video.with_suffix(".txt")
    return text.read_text(encoding="utf-8") if text.is_file() else ""


# --- clips as latents, once

def prepare(model: Pretrained, clips: list[tuple[Path, str]], config: JointConfig, size: tuple[int, int, int],
            processes) -> list[Path]:
    """Files with x1 and d1 (f, c, h, w) float16 of every clip, and text states in the cache: made now where missing.

    Args:
        size: (frames, height, width) in pixels.
        processes: an accelerate `PartialState`; each of them makes its share.

    Raises:
        MotionLabError: a video that cannot be read, is too short or too slow; flow that is not finite.
    """
    teacher = _teacher(config.flow, processes)
    files = [_clip_file(model, video, config, size, teacher) for video, _ in clips]
    with processes.split_between_processes(list(zip(files, clips))) as mine:
        for done, (file, (video, caption)) in enumerate(mine, 1):
            if not _is_whole(file, video):
                save_weights(file, _encoded(model, video, config, size, teacher), {"video": fingerprint(video)})
                print(f"encoded {done}/{len(mine)}: {video.name}", flush=True)
            model.backbone.grammar.encode(caption)
            model.backbone.grammar.known.clear()          # the cache has it: 4 MB a caption would fill the memory
    processes.wait_for_everyone()
    return files


def _teacher(name, processes):
    if name == "auto":
        weights = find_raft_weights()
        name, why = ("raft", weights.name) if weights else ("dis", "no RAFT weights in torch's download folder")
    else:
        why = "as asked"
    if processes.is_main_process:
        print(f"flow teacher: {name} ({why})", flush=True)
    return name


def _clip_file(model, video, config, size, teacher):
    """Named by all that decides what is in it but the video, whose fingerprint is inside."""
    vae = component_fingerprint(model.folder / "vae")
    settings = [model.kind, vae, size, _fps(config, model), teacher, config.sigma]
    digest = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:12]
    return Path(config.out_dir, "clips", f"{video.stem}-{digest}.safetensors")


def _is_whole(file, video):
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(file), "pt") as stored:
            return (stored.metadata() or {}).get("video") == fingerprint(video)
    except (SafetensorError, OSError):
        return False


def _encoded(model, video, config, size, teacher):
    fps, device = _fps(config, model), {"device": str(model.device)} if teacher == "raft" else {}
    clip = _long_enough(read_video(video, size=size[1:], fps=fps, max_frames=size[0]), video, size[0], fps)
    try:
        return encode_pair(model.encode, clip.frames, flow(clip.frames, teacher, **device), config.sigma)
    except MotionLabError as error:
        raise MotionLabError(f"{video.name}: {error.what}", fix=error.fix) from None


def _fps(config, model):
    return config.fps or FPS[model.kind]


def _long_enough(clip: RealClip, video: Path, frames: int, fps: float) -> RealClip:
    if clip.source_fps < 0.99 * fps:
        raise MotionLabError(f"'{video.name}' has {clip.source_fps:g} frames per second: at {fps:g} some would repeat, "
                             "and a repeated frame has no flow.",
                             fix=f"Take it out, or train with -p fps={clip.source_fps:g}.")
    if len(clip.frames) < frames:
        raise MotionLabError(f"'{video.name}' has {len(clip.frames)} of the {frames} frames that are needed, "
                             f"at {fps:g} per second.", fix="Take it out, or train on shorter clips with -p frames=N.")
    return clip


@torch.no_grad()
def encode_pair(encode: Callable, frames: np.ndarray, field: np.ndarray,
                sigma: float = SIGMA) -> dict[str, torch.Tensor]:
    """x1 of a clip and d1 of its flow, both (f, c, h, w) float16 and by the same autoencoder.

    Args:
        encode: video (b, f, 3, h, w) in [-1, 1] -> latents. frames: uint8 (f, h, w, 3).
        field: its flow (f-1, 2, h, w), pixels per frame.

    Raises:
        MotionLabError: a clip of one frame; flow of another size or length than the clip's, or that is not finite.
    """
    wanted = (len(frames) - 1, 2, *frames.shape[1:3])
    _require(len(frames) > 1, "A clip of one frame has no motion", "Take it out, or give a longer one.")
    _require(field.shape == wanted, f"The flow has shape {field.shape}, the clip's is {wanted}",
             "Take the flow of the very frames that are encoded, after they were resized.")
    pair = {"x1": encode(as_video(frames)[None])[0], "d1": motion_latent(encode, field, sigma)}
    return {name: z.half().cpu().contiguous() for name, z in pair.items()}


class JointClips:
    """Clips of `prepare` as training data: x1, d1 (b, f, c, h, w) float32 and their text states as tokens (b, n, d)."""

    def __init__(self, files: list[Path], captions: list[str], prompts):
        self.files, self.captions, self.prompts = files, captions, prompts

    def __len__(self) -> int:
        return len(self.files)

    def batch(self, indices: torch.Tensor) -> dict[str, torch.Tensor]:
        from safetensors.torch import load_file

        clips = [load_file(self.files[i]) for i in indices.tolist()]
        tokens = self.prompts.states(self.prompts.encode([self.captions[i] for i in indices.tolist()]))
        self.prompts.known.clear()
        return {name: torch.stack([clip[name] for clip in clips]).float() for name in ("x1", "d1")} | {"tokens": tokens}


# --- training

def train_joint(config: JointConfig) -> Path:
    """Fine-tune, from the newest checkpoint if there is one; the averaged weights go to out_dir/joint.safetensors.

    The file holds all weights in bfloat16, which sampling computes in: every weight was trained, so that the difference
    to the base would be as large, and useless without the very same base.

    Raises:
        MotionLabError: as `load_pretrained`, `find_clips`, `prepare` and `training.train`; another run's out_dir.
        KeyboardInterrupt: after Ctrl-C; the same call goes on.
    """
    from accelerate import PartialState

    processes = PartialState(cpu=config.cpu, timeout=PATIENCE)
    main, parts = processes.is_main_process, processes.num_processes
    clips = find_clips(config.videos)
    _check_same_run(config, ensure_writable(config.out_dir))
    model, size = _open(config, processes.device)
    if main:
        print(cost(config, size, parts, processes.device), flush=True)
    files = prepare(model, clips, config, size, processes)
    if main:
        write_atomic(Path(config.out_dir, "joint.yaml"), to_yaml(config))
    null = model.embed("").cpu()
    model.forget_text()
    model.codec.to("cpu")
    joint = JointBackbone(model.backbone, config.new)
    if config.gradient_checkpointing:
        model.transformer.enable_gradient_checkpointing()
    recipe = JointRecipe(config.text_dropout, config.motion_dropout, config.motion_weight)
    data = JointClips(files, [caption for _, caption in clips], model.backbone.grammar)
    result = train(joint, joint_training_loss(recipe, null, training_times(model)), data, config.training())
    path = Path(config.out_dir, "joint.safetensors")
    if main:
        joint.load_state_dict(result.ema_state())
        save_model(joint.base, path, KIND, torch.bfloat16, pipeline=model.kind, size=json.dumps(size),
                   vae=component_fingerprint(model.folder / "vae"), fps=_fps(config, model), step=result.step,
                   training=json.dumps(dataclasses.asdict(config)))
        print(f"{result.step} steps: {path}", flush=True)
    return path


def _check_same_run(config, folder):
    """A folder belongs to one run: what decides its weights may not change once the training has begun."""
    path = folder / "joint.yaml"
    if path.is_file():
        before, now = (dataclasses.asdict(c) for c in (from_yaml(JointConfig, path, "joint config"), config))
        changed = [f"{name} was {before[name]} and is now {now[name]}" for name in now
                   if before[name] != now[name] and name not in MAY_CHANGE]
        if changed:
            raise MotionLabError(f"'{folder}' belongs to another run: {', '.join(changed)}.",
                                 fix="Set the old values to go on with it, or choose another --out.")


def _open(config, device):
    """The snapshot, and (frames, height, width) of the clips. Weights are float32, since a step of 5e-6 is lost on
    bfloat16 ones; text states are those of the bfloat16 encoder."""
    model = load_pretrained(config.backbone, device, torch.float32, Path(config.out_dir, "text"))
    model.backbone.grammar.dtype = torch.bfloat16
    size = tuple(given or own for given, own in zip((config.frames, config.height, config.width), model.size()))
    model.backbone.config = latent_size(model.kind, model.channels, *size)
    return model, size


def cost(config: JointConfig, size: tuple[int, int, int], processes: int, device: torch.device) -> str:
    """What the training will take, as text: counted on the meta device, timed by bf16 matrix products of `device`."""
    from motionlab.core.speed import speed as measured_speed
    from motionlab.models import size as sizes

    counted = sizes.measure(config.backbone, *size, batch=max(1, config.batch_size // processes), widen=widen)
    speed = measured_speed("cpu" if device.type == "cpu" else str(device), 1.0).get("bf16")
    kept = counted.activations_checkpointed if config.gradient_checkpointing else counted.activations
    memory = sum(counted.fixed.values()) + 8 * counted.parameters + kept      # float32 weights, gradients and averages
    free = f", {sizes.gb(torch.cuda.mem_get_info(device)[0])} are free" if device.type == "cuda" else ""
    lines = [sizes.render(counted, speed, f"bf16 matrix products on {device.type}; a model reaches less"), "",
             f"This run, {config.steps} steps on {processes} device{'s' * (processes > 1)}",
             f"  at least {sizes.gb(memory)} of memory on each{free}"]
    if speed:
        lines.append(f"  at least {config.steps * counted.seconds(speed, config.gradient_checkpointing) / 3600:.3g} h")
    return "\n".join([*lines, ""])


def training_times(model: Pretrained) -> Callable:
    """noise (`SampleNoise`) -> t (b,), as the base was trained: the paper changes nothing there (card A15).

    Wan: logit-normal, moved to the noisy side by its scheduler's shift. CogVideoX: uniform over its timesteps.
    """
    backbone = model.backbone
    if model.kind == "wan":
        return lambda noise: torch.sigmoid(noise.randn() - math.log(backbone.flow_shift))
    border = backbone.border(None)
    return lambda noise: border.time(backbone.steps * noise.rand().cpu()).float().to(noise.device)


# --- sampling

@torch.no_grad()
def sample_joint(config: SampleConfig) -> list[Path]:
    """For every prompt the video (000.mp4) and, beside it, the flow picture generated with it (000_motion.mp4).

    The list of prompts goes to prompts.csv. Clips that are there already are kept.

    Raises:
        MotionLabError: as `read_prompts`, `read_model` and `load_pretrained`; another run's out_dir.
    """
    prompts, out = read_prompts(config.prompts), ensure_writable(config.out_dir)
    joint, model, about = load_joint(config)
    _same_samples(config, out)
    write_atomic(out / "prompts.csv", _table(prompts))
    tokens = model.backbone.grammar.encode([text for text, _ in prompts])
    model.backbone.grammar.null(1)
    model.forget_text()
    paths = [out / f"{k:03d}.mp4" for k in range(len(prompts))]
    for k, path in enumerate(paths):
        beside = path.with_stem(f"{path.stem}_motion")
        if not beside.is_file():                             # written last
            seed = 2 * (100_000 * config.seed + k)
            video, motion = joint_video(joint, model, tokens[k:k + 1], seed, config.guidance(), config.steps)
            write_mp4(path, video, about["fps"])
            write_mp4(beside, np.concatenate([video, motion], axis=2), about["fps"])
            print(f"{k + 1}/{len(paths)} {path}", flush=True)
    return paths


def check_sampling(backbone: str, weights: str, prompts: str) -> None:
    """Refuse a snapshot, a joint model or prompts that are not there before minutes of other work.

    Raises:
        MotionLabError: as `snapshot_kind` and `read_prompts`; no such joint model.
    """
    snapshot_kind(Path(backbone))
    _find_weights(weights)
    read_prompts(prompts)


def _find_weights(weights):
    if not Path(weights).is_file():
        raise MotionLabError(f"No joint model at '{weights}'.", fix="`motionlab train videojam` writes joint.safetensors.")


def load_joint(config: SampleConfig) -> tuple[JointBackbone, Pretrained, dict]:
    """The joint model of config.weights, the snapshot around it, and {size, fps} of the clips that it was trained on.

    Raises:
        MotionLabError: no such file, truncated or foreign; made from another pipeline, another autoencoder or size.
    """
    _find_weights(config.weights)
    _, meta, tensors = read_model(config.weights, KIND, "joint model")
    device = "cuda" if torch.cuda.is_available() and not config.cpu else "cpu"
    about = {"size": json.loads(meta["size"]), "fps": float(meta["fps"])}
    model = load_pretrained(config.backbone, device, torch.bfloat16 if config.bf16 else torch.float32,
                            Path(config.out_dir, "text"))
    here = {"pipeline": model.kind, "vae": component_fingerprint(model.folder / "vae")}
    for name, value in here.items():
        if meta[name] != value:
            raise MotionLabError(f"{config.weights} was trained with the {name} {meta[name]}, "
                                 f"'{config.backbone}' has {value}.", fix="Give the snapshot that it was trained from.")
    model.backbone.config = latent_size(model.kind, model.channels, *about["size"])
    joint = JointBackbone(model.backbone)
    fill(joint.base, tensors, config.weights)
    return joint.eval(), model, about


def joint_video(joint: JointBackbone, model: Pretrained, tokens: torch.Tensor, seed: int, guidance: Guidance,
                steps: int) -> tuple[np.ndarray, np.ndarray]:
    """A clip and the flow picture generated with it, each uint8 (f, h, w, 3), on the snapshot's own grid.

    Args:
        tokens: (1, 1) of the prompt. seed: of the video's starting noise; the motion's is the next one.
    """
    c = model.backbone.config
    shape = (c.max_frames, c.channels, c.height, c.width)
    z0 = torch.cat([prompt_noise([seed], shape), prompt_noise([seed + 1], shape)], 2).to(model.device)
    z = SAMPLERS["euler"](inner_guidance(joint, tokens, guidance), z0, model.grid(steps))
    video, motion = (as_frames(model.decode(half))[0] for half in split(z))
    return video, motion


def _same_samples(config, out):
    """A folder holds the clips of one model and one guidance."""
    path, now = out / "sampling.yaml", f"{to_yaml(config)}# weights {fingerprint(config.weights)}\n"
    if path.is_file() and path.read_text(encoding="utf-8") != now:
        raise MotionLabError(f"'{out}' holds clips of other settings or weights.",
                             fix="Choose another --out, or delete that folder.")
    write_atomic(path, now)


def _table(prompts):
    import io

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "category", "prompt"])
    writer.writerows([f"{k:03d}.mp4", kind or "", prompt] for k, (prompt, kind) in enumerate(prompts))
    return text.getvalue()
