"""Any method on any generator, on your videos: `motionlab train METHOD` and `motionlab sample METHOD`."""
from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch

from motionlab.core.config import from_values
from motionlab.core.errors import MotionLabError, one_of
from motionlab.core.files import ensure_writable, write_atomic
from motionlab.core.locks import held
from motionlab.core.speed import speed as measured_speed
from motionlab.core.yamls import read_yaml
from motionlab.data.sidecars import Sidecar
from motionlab.data.filtering import detected_boxes, judged_clips, kept
from motionlab.data.sources import Folder, Single, Some, find_clips, part_of
from motionlab.data.store import open_data
from motionlab.data.tracks import check_mask, demand_length, load_mask, load_tracks
from motionlab.data.tasks import Task, known_frames, read_tasks
from motionlab.experiments.heads import settled
from motionlab.methods import method_class
from motionlab.methods.base import Method, Sampling
from motionlab.methods.files import load_method, read_about, save_method
from motionlab.models.checkpoint import fingerprint
from motionlab.models.open import open_pipe, pipe_class
from motionlab.models.pipe import FRAMES_OF, Pipe
from motionlab.models.small.pipe import SmallPipe
from motionlab.training import TrainConfig, train
from motionlab.training.trained import load_trained
from motionlab.video import probe_video, write_mp4

MAY_CHANGE = ("out_dir", "steps", "checkpoint_every", "log_every", "gradient_checkpointing", "cpu")
PROBED = 100                                 # videos that are looked into before anything long; all are when they are encoded
PATIENCE = timedelta(hours=12)               # for other processes to finish encoding; the usual limit is 10 minutes


@dataclass(frozen=True)
class TuneConfig:
    """A training of a method. 0 means the generator's own.

    backbone: folder of a snapshot, "" for the kit's own. videos: folder with *.mp4 and captions, see `data.sources.find_clips`;
    leave_out: of the folder's videos, by name, the last so many are not trained on. Or
    video: one file, with caption, and where a method wants tracks, tracks or mask, and cotracker (see `data.sources.Single`).
    filtered: of a folder, only clips that a tracker is fit to teach on (`data.filtering`), whatever the method, so that rivals share them;
    by boxes, a CSV, or what a detector finds (`detected_boxes`, a folder), and tracker, weights of SAM2. What is left out is listed in
    out_dir/filtered.csv.
    frames, height, width, fps: of the clips; of each video the first `frames` frames at `fps` are taken. crop: of the one video.
    batch_size: over all processes. lr: constant, by default without warm-up, since the start is the base. beta2, weight_decay: of
    AdamW. ema: of what is kept at the end. gradient_checkpointing: less memory for a third more time. bf16: autocast over float32 weights.

    Raises:
        MotionLabError: a value out of range.
    """

    backbone: str = ""
    videos: str = ""
    video: str = ""
    caption: str = ""
    tracks: str = ""
    mask: str = ""
    cotracker: str = ""
    filtered: bool = False
    boxes: str = ""
    detector: str = ""
    tracker: str = ""
    crop: bool = True
    out_dir: str = "runs/tuned"
    frames: int = 0
    height: int = 0
    width: int = 0
    fps: float = 0.0
    leave_out: int = 0
    steps: int = 2000
    batch_size: int = 8
    lr: float = 5e-6
    warmup: int = 0
    beta2: float = 0.99
    weight_decay: float = 0.01
    ema: float = 0.999
    gradient_checkpointing: bool = False
    bf16: bool = True
    checkpoint_every: int = 200
    log_every: int = 10
    seed: int = 0
    cpu: bool = False

    def __post_init__(self):
        for name in ("frames", "height", "width", "fps", "leave_out"):
            if getattr(self, name) < 0:
                raise MotionLabError(f"{name} is {getattr(self, name)}.", fix="Give 0 for none or the generator's own.")
        self.training()

    def training(self) -> TrainConfig:
        """Settings of the training loop; errors as there."""
        return TrainConfig(**{f.name: getattr(self, f.name) for f in dataclasses.fields(TrainConfig) if f.name in vars(self)})

    def source(self, pipe: Pipe) -> Folder | Single:
        """The clips, at the generator's length and size."""
        fps = self.fps or pipe.fps
        if not self.video:
            return Folder(self.videos, pipe.frames, pipe.size, fps, self.leave_out)
        files = (self.tracks, self.mask, self.cotracker)
        return Single(Path(self.video), self.caption.strip(), pipe.frames, pipe.size, fps, self.crop, *files)


def check_inputs(backbone: str, videos: str, leave_out: int = 0) -> None:
    """Refuse a snapshot or videos that are not there before minutes of other work.

    Raises:
        MotionLabError: as `models.open.pipe_class`, `find_clips` and `part_of`; no videos given; among the first `PROBED` one that
            cannot be decoded at its beginning or its end.
    """
    if backbone:
        pipe_class(backbone)
    if not videos:
        raise MotionLabError("A backbone is given, but no videos.", fix="Give a folder of *.mp4 with captions.csv: -p videos=FOLDER.")
    clips = find_clips(videos)
    part_of(clips, leave_out, videos)
    for path, _ in clips[:PROBED]:
        probe_video(path)


def check_clips(config: TuneConfig, wanted: Sequence[Sidecar] = ()) -> None:
    """`check_inputs`, and of one video all that can be said before a generator is opened.

    Raises:
        MotionLabError: both a video and a folder, no caption; an unreadable video, track file or mask; a mask of another size than the
            video, tracks of another length than the clip; tracks that are wanted and cannot be had.
    """
    tracked = any(one.kind == "tracks" for one in wanted)
    if config.filtered and not config.detector and not Path(config.boxes).is_file():
        raise MotionLabError(f"Clips are to be filtered, and there is no table of boxes '{config.boxes}'.",
                             fix="Give -p boxes=FILE.csv (file, x0, y0, x1, y1), or -p filtered=false.")
    if not config.video:
        check_inputs(config.backbone, config.videos, config.leave_out)
        if tracked:
            raise MotionLabError("This method follows points of one clip, and was given a folder of videos.",
                                 fix="Give --video, --caption and --tracks or --mask, or a loss without tracks.")
        return
    if config.videos or not config.caption.strip():
        raise MotionLabError("A video is given, and a folder of videos too." if config.videos else f"'{config.video}' has no caption.",
                             fix="Give --video with --caption, or --videos.")
    if config.backbone:
        pipe_class(config.backbone)
    size = probe_video(config.video).size
    if tracked and not (config.tracks or config.mask):
        raise MotionLabError(f"This method follows points of '{config.video}', and was given none.",
                             fix="Give --tracks FILE, or --mask PICTURE of the subject in frame 0, or a loss without tracks.")
    if config.mask:
        check_mask(load_mask(config.mask), size, config.mask)
    if config.tracks:
        found = load_tracks(config.tracks)
        demand_length(found, config.frames or len(found), config.tracks)
    if config.cotracker and not Path(config.cotracker).is_file():
        raise MotionLabError(f"There are no weights of CoTracker3 at '{config.cotracker}'.", fix="Leave it out for Lucas-Kanade.")


def tune(method: Method, config: TuneConfig) -> Path:
    """Train, from the newest checkpoint if there is one; what was trained goes to out_dir/<method>.safetensors.

    Raises:
        MotionLabError: as `check_clips`, `open_pipe`, `open_data` and `training.train`; another run's out_dir.
        KeyboardInterrupt: after Ctrl-C; the same call goes on.
    """
    from accelerate import PartialState

    demand_training(method)
    check_clips(config, method.wants())
    processes, out = PartialState(cpu=config.cpu, timeout=PATIENCE), ensure_writable(config.out_dir)
    settings = {"method": method.name, "settings": dataclasses.asdict(method)}
    check_same(out / "tuning.yaml", dataclasses.asdict(config) | settings, MAY_CHANGE)
    pipe = open_pipe(config.backbone, config.frames or None, config.height or None, config.width or None, device=str(processes.device),
                     cache=out / "text", dtype=torch.float32)
    method.check(pipe)
    with processes.main_process_first():
        source = kept_source(config.source(pipe), config, out)
        sidecars = (*method.wants(), *(Sidecar(kind) for kind in pipe.reads))
        data = open_data(source, pipe, sidecars, out / "clips")
        pipe.text(["", *data.captions])
    pipe.forget_text()
    method.attach(pipe)
    if processes.is_main_process:
        print(cost(pipe, config, processes.num_processes, processes.device), flush=True)
    method = settled(method, pipe, data, config.training(), out)
    result = train(pipe, method.loss(pipe), data, config.training())
    path = out / f"{method.name}.safetensors"
    if processes.is_main_process:
        note = {"size": json.dumps([pipe.frames, *pipe.size]), "fps": str(config.fps or pipe.fps), "step": str(result.step)}
        save_method(method, load_trained(pipe, result.ema_state()), path, note)
        print(f"{result.step} steps: {path}", flush=True)
    return path


def kept_source(source, config: TuneConfig, out: Path):
    """The source, or of it the clips that a tracker is fit to teach on; errors as `judged_clips`."""
    if not config.filtered:
        return source
    boxes = config.boxes or str(detected_boxes(source, config.detector, out / "boxes.csv"))
    rows = kept(judged_clips(source, boxes, config.tracker, out / "filtered.csv"))
    return source if len(rows) == len(source) else Some(source, rows)


def demand_training(method: Method) -> None:
    """Raises MotionLabError for a method that there is nothing to train of."""
    if not method.trains:
        raise MotionLabError(f"Method {method.name} is not trained: it acts while sampling.",
                             fix="Sample with it (Method.sample, or an arm of a sweep without `train`).")


def cost(pipe: Pipe, config: TuneConfig, processes: int, device: torch.device) -> str:
    """What the training will take, as text: trained and all parameters, FLOPs by 6 per parameter and token, timed by matrix products."""
    trained = sum(p.numel() for p in pipe.parameters() if p.requires_grad)
    everything, tokens = sum(p.numel() for p in pipe.denoiser.parameters()), pipe.tokens
    lines = [f"{trained:,} of {everything:,} parameters are trained, {tokens} tokens a clip, "
             f"{config.steps} steps of {config.batch_size} clips"]
    found = measured_speed("cpu" if device.type == "cpu" else str(device), 1.0)
    if found:
        flops = 6 * everything * tokens * config.batch_size * config.steps / processes
        lines.append(f"at least {flops / max(found.values()) / 1e12 / 3600:.3g} h here, without attention's own products")
    return "\n".join(lines)


# ---------------------------------------------------------------------------------------------- sampling
@dataclass(frozen=True)
class SampleConfig:
    """Clips of a tuned generator. weights: a file of `tune`. prompts: a file of `data.tasks.read_tasks`. seed: of the starting noise."""

    backbone: str = ""
    weights: str = ""
    prompts: str = ""
    out_dir: str = "runs/samples"
    bf16: bool = True
    seed: int = 0
    cpu: bool = False


def check_sampling(backbone: str, weights: str, prompts: str, mode: str = "") -> None:
    """Refuse a snapshot, weights or prompts that are not there before minutes of other work.

    Raises:
        MotionLabError: as `models.open.pipe_class`, `read_about`, `read_tasks` and `demand_pictures`.
    """
    kind, tasks = pipe_class(backbone) if backbone else SmallPipe, read_tasks(prompts)
    read_about(weights)
    demand_pictures(tasks, mode or kind.modes[0], prompts)


def demand_pictures(tasks: list[Task], mode: str, where: str) -> None:
    """Raises MotionLabError where tasks lack a frame that the mode needs."""
    for name in FRAMES_OF.get(mode, ()):
        lacking = [task for task in tasks if getattr(task, name) is None]
        if lacking:
            raise MotionLabError(f"Mode '{mode}' needs the {name} frame of every task, and {len(lacking)} of {len(tasks)} in "
                                 f"'{where}' have none.",
                                 fix=f"Add a column {name} with a picture's path to the prompt file.")


@torch.no_grad()
def sample(config: SampleConfig, options: Sampling | None = None) -> list[Path]:
    """For every prompt its video (000.mp4) and, beside it, whatever else the method generates (000_motion.mp4: both side by side).

    The list of prompts goes to prompts.csv. Clips that are there already are kept.

    Raises:
        MotionLabError: as `read_tasks`, `load_method` and `open_pipe`; another run's out_dir, or one that is being written now.
    """
    check_sampling(config.backbone, config.weights, config.prompts, options.mode if options else "")
    tasks, about = read_tasks(config.prompts), read_about(config.weights)
    method = from_values(method_class(about["method"]), json.loads(about["settings"]), f"settings in {config.weights}")
    options, out = options or method.Sampling(), ensure_writable(config.out_dir)
    settings = {"options": dataclasses.asdict(options), "digest": fingerprint(config.weights)}
    check_same(out / "sampling.yaml", dataclasses.asdict(config) | settings)
    with held(out / ".lock-sampling", f"sampling to '{out}'"):
        return _sampled(config, method, options, tasks, about, out)


def _sampled(config, method, options, tasks, about, out):
    write_atomic(out / "prompts.csv", _table(tasks))
    device = "cuda" if torch.cuda.is_available() and not config.cpu else "cpu"
    frames, height, width = json.loads(about["size"])
    dtype = torch.bfloat16 if config.bf16 else torch.float32
    pipe = open_pipe(config.backbone, frames, height, width, device=device, cache=out / "text", dtype=dtype)
    mode = one_of(options.mode or pipe.modes[0], pipe.modes, f"conditioning mode of {pipe.kind}")
    demand_pictures(tasks, mode, config.prompts)
    demanded = {name: value for name, value in known_frames(tasks, pipe.size).items() if name in FRAMES_OF[mode]}
    pipe.text(["", *(task.text for task in tasks)])
    pipe.forget_text()
    load_method(method, pipe, config.weights)
    paths = [out / f"{k:03d}.mp4" for k in range(len(tasks))]
    for k, path in enumerate(paths):
        if not path.is_file():
            frames = {name: value[k:k + 1] for name, value in demanded.items()}
            state = method.sample(pipe, [tasks[k].text], [2 * (100_000 * config.seed + k)], options, **frames)
            _write(path, {name: pipe.decode(z)[0] for name, z in method.streams(state).items()}, float(about["fps"]))
            print(f"{k + 1}/{len(paths)} {path}", flush=True)
    return paths


def _write(path, streams, fps):
    import numpy as np

    for name, frames in streams.items():
        if name != "video":
            write_mp4(path.with_stem(f"{path.stem}_{name}"), np.concatenate([streams["video"], frames], axis=2), fps)
    write_mp4(path, streams["video"], fps)                    # last: it marks the prompt as done


def check_same(path: Path, now: dict, may_change: Sequence[str] = ()) -> None:
    """Hold a folder to one set of settings: those in the file `path`, which is written with `now`.

    Raises:
        MotionLabError: a setting that differs, but for those named in may_change.
    """
    import yaml

    now = json.loads(json.dumps(now))
    before = dict(read_yaml(path) or {}) if path.is_file() else now
    changed = [f"{name} was {before.get(name)} and is now {value}" for name, value in now.items()
               if name not in may_change and before.get(name) != value]
    if changed:
        raise MotionLabError(f"'{path.parent}' belongs to another run: {', '.join(changed)}.",
                             fix="Set the old values to go on with it, or choose another --out.")
    write_atomic(path, yaml.safe_dump(now, sort_keys=False))


def _table(tasks: list[Task]):
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "category", "prompt"])
    writer.writerows([f"{k:03d}.mp4", task.category or "", task.text] for k, task in enumerate(tasks))
    return text.getvalue()
