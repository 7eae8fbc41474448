"""One training loop for every model of the kit: one process, several processes, CPU or GPU, on accelerate.

    class Latents:                                     # anything with __len__ and batch(indices)
        def __len__(self): return len(self.x)
        def batch(self, indices): return self.x[indices]          # (b, ...) tensor, or a dict of them

    def loss_fn(model, x1, noise):                     # rectified flow: x_t = t x1 + (1-t) x0, v = x1 - x0
        t = torch.sigmoid(noise.randn() - 0.3)         # (b,)
        x0 = noise.randn(*x1.shape[1:])                # (b, ...)
        x_t = t[:, None] * x1 + (1 - t[:, None]) * x0
        per_sample = (model(x_t, t) - (x1 - x0)).square().mean(1)
        return per_sample.mean(), {"t": t, "per_sample": per_sample}

    result = train(model, loss_fn, Latents(), TrainConfig(steps=1000, out_dir="runs/base"))
    result.export_ema("base.safetensors")

Random numbers. `noise` holds one CPU `torch.Generator` per sample, seeded by (seed, step, global position in the
batch). What a sample draws is therefore the same for any number of processes and after any resume. (`noise` is a list,
so it can be given to diffusers' functions that take a list of generators.) Torch's global generator, which dropout
uses, is seeded again before each step from (seed, step, process): the state of every generator is a function of numbers
in the checkpoint, and no generator state has to be stored. With dropout, two processes differ from one; without, the
loss curves agree up to rounding. `data.batch` must be a function of its indices alone.

Several processes: `accelerate launch --num_processes 2 script.py` on GPUs, `torchrun --nproc_per_node 2 script.py` on
the CPU (there, `accelerate launch --cpu` starts one process whatever it is told). `batch_size` counts over all
processes. Process r takes the r-th contiguous slice of the batch, and the loss must be a mean over samples. In
`loss_fn` only call the model: with several processes it is wrapped, and its attributes are not visible.
"""
from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from motionlab.core import config as configs
from motionlab.core.errors import MotionLabError, one_of
from motionlab.core.files import explained_tensors, save_weights, write_atomic
from motionlab.training.muon import Muon
from motionlab.core.precision import autocast

FORMAT = "motionlab-training-1"
BINS = 10
KEEP = 2
TENSOR_FILES = ("model.safetensors", "ema.safetensors", "optimizer.safetensors")
MUST_MATCH = ("seed", "batch_size", "optimizer")


# ---------------------------------------------------------------------------------------------------- configuration


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a run, flat.

    steps: updates in total. batch_size: samples per update, over all processes.
    lr: AdamW's learning rate. muon_lr: Muon's, used with optimizer 'muon' for the 2-D matrices of the blocks
    (parameters below a numbered module, embeddings excepted); with muon_adjust 'match_rms_adamw' both have one scale.
    weight_decay: on parameters of 2 or more dimensions. warmup: steps of linear growth, then schedule 'constant', or
    'cosine' down to 0 at `steps`. grad_clip: largest gradient norm, 0 for none. ema: decay; in step n it is at most
    (1 + n) / (10 + n), so that the initial weights do not linger. bf16: autocast, where the machine is fast in it.
    checkpoint_every, log_every, sample_every: steps, 0 for never (a last checkpoint is always written).
    find_unused_parameters: for several processes, when some step leaves a trainable parameter without gradient.
    threads: CPU threads of torch, 0 leaves them alone. cpu: stay off the GPU.

    Raises:
        MotionLabError: a value out of range.
    """

    steps: int = 1000
    batch_size: int = 16
    optimizer: str = "adamw"
    lr: float = 1e-3
    muon_lr: float = 2e-3
    muon_adjust: str = "match_rms_adamw"
    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.01
    warmup: int = 60
    schedule: str = "constant"
    grad_clip: float = 1.0
    ema: float = 0.995
    bf16: bool = False
    checkpoint_every: int = 500
    log_every: int = 20
    sample_every: int = 0
    seed: int = 0
    out_dir: str = "runs/train"
    threads: int = 0
    cpu: bool = False
    find_unused_parameters: bool = False

    def __post_init__(self):
        one_of(self.optimizer, ("adamw", "muon"), "optimizer")
        one_of(self.schedule, ("constant", "cosine"), "schedule")
        one_of(self.muon_adjust, ("match_rms_adamw", "original"), "muon_adjust")
        for name in ("steps", "batch_size", "lr", "muon_lr"):
            _require(getattr(self, name) > 0, name, "more than 0", getattr(self, name))
        for name in ("weight_decay", "warmup", "grad_clip", "checkpoint_every", "log_every", "sample_every", "seed",
                     "threads"):
            _require(getattr(self, name) >= 0, name, "0 or more", getattr(self, name))
        for name in ("ema", "beta1", "beta2"):
            _require(0 <= getattr(self, name) < 1, name, "in [0, 1)", getattr(self, name))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainConfig:
        """From plain values; errors as `config.from_values`."""
        return configs.from_values(cls, values, "training config")

    @classmethod
    def from_yaml(cls, path: str | Path) -> TrainConfig:
        """From a flat YAML file; errors as `config.from_yaml`."""
        return configs.from_yaml(cls, Path(path), "training config")

    def to_yaml(self, path: str | Path) -> None:
        """Write the YAML file that `from_yaml` reads."""
        write_atomic(path, configs.to_yaml(self))


def _require(holds: bool, name: str, rule: str, value: Any) -> None:
    if not holds:
        raise MotionLabError(f"TrainConfig.{name} must be {rule}, not {value}.", fix=f"Set another {name}.")


# ------------------------------------------------------------------------------------------- random numbers and data


def _seed_of(*parts: Any) -> int:
    """A 63-bit seed from any values: near seeds and steps give unrelated streams."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class SampleNoise(list):
    """One `torch.Generator` per sample of this process's slice; draws on the CPU, results on `device`.

    Args:
        seed, step: of the run.
        positions: global positions in the batch, one per local sample.
    """

    def __init__(self, seed: int, step: int, positions: range, device: torch.device | str = "cpu"):
        super().__init__(torch.Generator().manual_seed(_seed_of("noise", seed, step, p)) for p in positions)
        self.device = device

    def randn(self, *shape: int) -> torch.Tensor:
        """Standard normal (b, *shape)."""
        return torch.stack([torch.randn(shape, generator=g) for g in self]).to(self.device)

    def rand(self, *shape: int) -> torch.Tensor:
        """Uniform in [0, 1), (b, *shape)."""
        return torch.stack([torch.rand(shape, generator=g) for g in self]).to(self.device)

    def randint(self, low: int, high: int, *shape: int) -> torch.Tensor:
        """Whole numbers in [low, high), int64 (b, *shape)."""
        return torch.stack([torch.randint(low, high, shape, generator=g) for g in self]).to(self.device)


class DataCursor:
    """Which items the k-th, k+1-th, ... samples of a run are: a fresh permutation of `length` items per epoch."""

    def __init__(self, length: int, seed: int):
        self.length, self.seed, self._orders = length, seed, {}

    def order(self, epoch: int) -> torch.Tensor:
        if epoch not in self._orders:
            self._orders = {e: o for e, o in self._orders.items() if e == epoch - 1}  # a batch spans few epochs
            generator = torch.Generator().manual_seed(_seed_of("epoch", self.seed, epoch))
            self._orders[epoch] = torch.randperm(self.length, generator=generator)
        return self._orders[epoch]

    def indices(self, samples: range) -> torch.Tensor:
        """Item numbers, int64 (b,), of the samples with these global counts."""
        return torch.stack([self.order(k // self.length)[k % self.length] for k in samples])


# ------------------------------------------------------------------------------------------- optimisers and schedule


def lr_factor(config: TrainConfig, step: int) -> float:
    """Factor on the learning rate for the update that follows `step` finished ones."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    if config.schedule == "constant":
        return 1.0
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def block_matrices(model: torch.nn.Module) -> list[str]:
    """Names of the trainable 2-D parameters below a numbered module (`blocks.3.attn.to_q.weight`), no embeddings."""
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    matrices = [name for name, p in model.named_parameters()
                if p.requires_grad and p.ndim == 2 and id(p) not in embeddings]
    return [name for name in matrices if any(part.isdigit() for part in name.split("."))]


def _optimizers(model: torch.nn.Module, config: TrainConfig) -> dict[str, torch.optim.Optimizer]:
    """{'adamw': ...} or {'adamw': ..., 'muon': ...}; every group knows its names and its base learning rate."""
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not trainable:
        raise MotionLabError("The model has no trainable parameter.",
                             fix="Set requires_grad on what should be trained.")
    muon = block_matrices(model) if config.optimizer == "muon" else []
    if config.optimizer == "muon" and not muon:
        raise MotionLabError("optimizer 'muon' found no 2-D matrix in a numbered block.", fix="Use optimizer 'adamw'.")
    rest = [name for name in trainable if name not in set(muon)]
    groups = [_group(trainable, [n for n in rest if trainable[n].ndim >= 2], config.lr, config.weight_decay),
              _group(trainable, [n for n in rest if trainable[n].ndim < 2], config.lr, 0.0)]
    groups = [group for group in groups if group["params"]]
    made: dict[str, torch.optim.Optimizer] = {}
    if groups:
        made["adamw"] = torch.optim.AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2), fused=True)
    if muon:
        made["muon"] = Muon([_group(trainable, muon, config.muon_lr, config.weight_decay)],
                                        lr=config.muon_lr, adjust_lr_fn=config.muon_adjust)
    return made


def _group(trainable: dict, names: list[str], lr: float, weight_decay: float) -> dict[str, Any]:
    params = [trainable[n] for n in names]
    return {"params": params, "names": names, "base_lr": lr, "lr": lr, "weight_decay": weight_decay}


def _set_lr(optimizers: dict, factor: float) -> None:
    for optimizer in optimizers.values():
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor


@contextlib.contextmanager
def _scaled_moves(params: list[torch.nn.Parameter]) -> Iterator[None]:
    """A parameter with an attribute `lr_scale`, a tensor of its shape, moves that many times as far: a rate per entry."""
    scaled = [(p, p.detach().clone()) for p in params if hasattr(p, "lr_scale")]
    yield
    with torch.no_grad():
        for p, before in scaled:
            p.copy_(before + p.lr_scale.to(p) * (p - before))


def _flatten(optimizers: dict) -> dict[str, torch.Tensor]:
    """Optimiser state as {'adamw|exp_avg|blocks.0.weight': tensor}."""
    flat = {}
    for kind, optimizer in optimizers.items():
        for group in optimizer.param_groups:
            for name, p in zip(group["names"], group["params"]):
                for key, value in optimizer.state.get(p, {}).items():
                    flat[f"{kind}|{key}|{name}"] = torch.as_tensor(value)
    return flat


def _unflatten(optimizers: dict, flat: dict[str, torch.Tensor]) -> None:
    for kind, optimizer in optimizers.items():
        plain = optimizer.state_dict()
        number = {name: i for group in plain["param_groups"] for name, i in zip(group["names"], group["params"])}
        plain["state"] = {}
        for full, value in flat.items():
            owner, key, name = full.split("|", 2)
            if owner == kind and name in number:
                plain["state"].setdefault(number[name], {})[key] = value
        optimizer.load_state_dict(plain)


class _Ema:
    """Moving average, fp32, of the trainable parameters."""

    def __init__(self, model: torch.nn.Module, decay: float):
        self.decay = decay
        self.live = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.mean = {name: p.detach().float().clone() for name, p in self.live.items()}

    def update(self, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.mean.values()), [p.detach().float() for p in self.live.values()], 1 - decay)

    def state(self, model: torch.nn.Module) -> dict[str, torch.Tensor]:
        """The model's state dict with the averages in it, under every name that a shared parameter has."""
        average = {p.data_ptr(): self.mean[name] for name, p in self.live.items()}
        return {name: average.get(value.data_ptr(), value) for name, value in model.state_dict().items()}

    @contextlib.contextmanager
    def swapped_in(self) -> Iterator[None]:
        """The model has the averaged weights inside, and its own again, bit for bit, after."""
        kept = {name: p.detach().clone() for name, p in self.live.items()}
        _copy_into(self.live, self.mean)
        try:
            yield
        finally:
            _copy_into(self.live, kept)


@torch.no_grad()
def _copy_into(targets: dict[str, torch.Tensor], sources: dict[str, torch.Tensor]) -> None:
    for name, target in targets.items():
        target.copy_(sources[name])


# ------------------------------------------------------------------------------------------------------- checkpoints
# out_dir/checkpoints/step_00000500/{model,ema,optimizer}.safetensors and state.json, which lists size and SHA-256 of
# the others. A folder is written under another name and renamed when it is complete: a name `step_*` is a whole one.


def checkpoints(out_dir: str | Path) -> list[Path]:
    """Finished checkpoints below `out_dir`, oldest first (found by name, not verified)."""
    found = (Path(out_dir) / "checkpoints").glob("step_*")
    return sorted(path for path in found if path.is_dir() and path.name[5:].isdigit())


def _write_checkpoint(out_dir: Path, step: int, tensors: dict[str, dict], state: dict[str, Any]) -> Path:
    from safetensors.torch import save_file

    folder = out_dir / "checkpoints"
    final, temporary = folder / f"step_{step:08d}", folder / f"unfinished_{step:08d}"
    shutil.rmtree(temporary, ignore_errors=True)
    with explained_tensors(final):
        try:
            temporary.mkdir(parents=True)
            for name in TENSOR_FILES:
                save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors[name].items()}, temporary / name)
            files = {name: _fingerprint(temporary / name) for name in TENSOR_FILES}
            state = {"format": FORMAT, "step": step, **state, "files": files}
            (temporary / "state.json").write_text(json.dumps(state, indent=1), encoding="utf-8")
            for name in (*TENSOR_FILES, "state.json"):
                _sync(temporary / name)
            os.rename(temporary, final)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)          # a full disk needs the room
            raise
    _sync(folder)
    for old in checkpoints(out_dir)[:-KEEP]:
        _discard(old)
    return final


def _discard(path: Path) -> None:
    """Rename, then delete: a kill in between leaves no half checkpoint under a good name."""
    doomed = path.with_name(f"unfinished_{path.name[5:]}")
    shutil.rmtree(doomed, ignore_errors=True)
    os.rename(path, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _sync(path: Path) -> None:
    """Have the disk keep a file, or a folder's names where the system can do that (Windows cannot)."""
    try:
        handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)


def _fingerprint(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _problem(path: Path) -> str | None:
    """What is wrong with a checkpoint folder, naming the file; None when it is whole."""
    try:
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
        known = state["files"] if state["format"] == FORMAT else None
    except OSError:
        return f"{path / 'state.json'} is missing"
    except (ValueError, KeyError, TypeError):
        return f"{path / 'state.json'} is truncated or foreign"
    if known is None:
        return f"{path / 'state.json'} has format {state['format']!r}, not {FORMAT!r}"
    for name in TENSOR_FILES:
        if not (path / name).is_file():
            return f"{path / name} is missing"
        if _fingerprint(path / name) != known.get(name):
            return f"{path / name} is truncated or changed since it was written"
    return None


def _latest(out_dir: Path) -> tuple[Path | None, list[tuple[Path, str]]]:
    """The newest whole checkpoint (None: there is no checkpoint at all), and the broken ones that are newer.

    Raises:
        MotionLabError: there are checkpoints and none of them is whole.
    """
    broken = []
    for path in reversed(checkpoints(out_dir)):
        problem = _problem(path)
        if problem is None:
            return path, broken
        broken.append((path, problem))
    if broken:
        problems = "; ".join(problem for _, problem in broken)
        raise MotionLabError(f"No checkpoint in {out_dir / 'checkpoints'} can be read: {problems}.",
                             fix="Restore the files from a copy, or delete that folder to start from step 0.")
    return None, []


def _read(path: Path) -> tuple[dict[str, Any], dict[str, dict[str, torch.Tensor]]]:
    from safetensors.torch import load_file

    state = json.loads((path / "state.json").read_text(encoding="utf-8"))
    return state, {name: load_file(path / name) for name in TENSOR_FILES}


def _check_same_run(path: Path, state: dict, config: TrainConfig, length: int) -> None:
    before = {**{name: state["config"].get(name) for name in MUST_MATCH}, "data length": state["data_length"]}
    now = {**{name: getattr(config, name) for name in MUST_MATCH}, "data length": length}
    changed = [f"{name} was {before[name]} and is now {now[name]}" for name in now if before[name] != now[name]]
    if changed:
        raise MotionLabError(f"{path} belongs to another run: {', '.join(changed)}.",
                             fix="Set the old values to go on with it, or choose another out_dir.")


def _check_same_model(path: Path, stored: dict[str, torch.Tensor], model: torch.nn.Module) -> None:
    own = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    theirs = {name: tuple(value.shape) for name, value in stored.items()}
    if own == theirs:
        return
    name = sorted(n for n in own.keys() | theirs.keys() if own.get(n) != theirs.get(n))[0]
    raise MotionLabError(f"{path} holds another model: '{name}' is {theirs.get(name, 'absent')} there and "
                         f"{own.get(name, 'absent')} in yours.",
                         fix="Build the model with the configuration of that run, or choose another out_dir.")


def export_ema(checkpoint: str | Path, path: str | Path, dtype: torch.dtype = torch.bfloat16,
               metadata: dict[str, Any] | None = None) -> Path:
    """Write the averaged weights of a checkpoint folder as one safetensors file.

    Its metadata has 'motionlab' (JSON: step and training config) and each entry of `metadata` (text, or made JSON).
    Floating tensors are cast to `dtype`.

    Raises:
        MotionLabError: the checkpoint is missing, truncated or foreign.
    """
    from safetensors.torch import load_file

    checkpoint = Path(checkpoint)
    problem = _problem(checkpoint)
    if problem:
        raise MotionLabError(f"Cannot export: {problem}.",
                             fix="Give a folder out_dir/checkpoints/step_* of a training run.")
    state = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
    average = load_file(checkpoint / "ema.safetensors")
    weights = {name: v.to(dtype) if v.is_floating_point() else v for name, v in average.items()}
    notes = {k: v if isinstance(v, str) else json.dumps(v) for k, v in (metadata or {}).items()}
    notes |= {"format": "pt", "motionlab": json.dumps({"step": state["step"], "training": state["config"]})}
    return save_weights(path, weights, notes)


# --------------------------------------------------------------------------------------------------------------- log


class _Window:
    """Sums since the last log row: loss, loss per bin of t, gradient norm."""

    def __init__(self):
        self.steps, self.loss, self.grad_norm = 0, 0.0, 0.0
        self.bin_sum, self.bin_count = torch.zeros(BINS, dtype=torch.float64), torch.zeros(BINS, dtype=torch.float64)

    def add(self, loss: float, t: torch.Tensor, per_sample: torch.Tensor, grad_norm: float) -> None:
        self.steps, self.loss, self.grad_norm = self.steps + 1, self.loss + loss, self.grad_norm + grad_norm
        bins = (t * BINS).long().clamp(0, BINS - 1)
        self.bin_sum.index_add_(0, bins, per_sample)
        self.bin_count.index_add_(0, bins, torch.ones_like(per_sample))

    def row(self) -> dict[str, Any]:
        per_bin = [float(s / c) if c else None for s, c in zip(self.bin_sum, self.bin_count)]
        return {"loss": self.loss / self.steps, "loss_per_t_bin": per_bin,
                "n_per_t_bin": [int(c) for c in self.bin_count], "grad_norm": self.grad_norm / self.steps}


class _Log:
    """out_dir/log.jsonl and a progress line, in the main process; W&B beside it when WANDB_MODE is set."""

    def __init__(self, config: TrainConfig, main: bool, start: int):
        self.config, self.main, self.start, self.began = config, main, start, time.monotonic()
        self.path, self.wandb = Path(config.out_dir) / "log.jsonl", None
        if main:
            self._cut_after(start)
            self.wandb = self._start_wandb()

    def _cut_after(self, step: int) -> None:
        """Drop the rows of steps that a kill has undone, and a half-written last line."""
        kept = [line for line in _lines(self.path) if json.loads(line).get("step", 0) <= step]
        temporary = self.path.with_suffix(".unfinished")
        temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        os.replace(temporary, self.path)

    def _start_wandb(self):
        if os.environ.get("WANDB_MODE", "disabled") == "disabled":
            return None
        try:
            import wandb

            return wandb.init(project="motionlab", dir=self.config.out_dir, name=Path(self.config.out_dir).name,
                              config=dataclasses.asdict(self.config))
        except Exception as error:  # a missing login must not cost a night of training
            print(f"W&B is off ({error}); log.jsonl has everything.", flush=True)
            return None

    def write(self, row: dict[str, Any]) -> None:
        if not self.main:
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        if self.wandb is not None:
            self.wandb.log({k: v for k, v in row.items() if isinstance(v, (int, float))}, step=row["step"])

    def progress(self, step: int, until: int, row: dict[str, Any]) -> None:
        seconds = time.monotonic() - self.began
        left = seconds / max(1, step - self.start) * (until - step)
        self.write({"step": step, **row, "seconds": round(seconds, 3), "seconds_left": round(left, 3)})
        if self.main:
            done = f"step {step}/{self.config.steps}"
            print(f"{done}  loss {row['loss']:.4f}  lr {row['lr']:.2e}  {_clock(left)} left", flush=True)

    def note(self, step: int, text: str) -> None:
        self.write({"step": step, "note": text})
        if self.main:
            print(f"note: {text}", flush=True)

    def close(self) -> None:
        if self.wandb is not None:
            self.wandb.finish()


def _lines(path: Path) -> list[str]:
    """The whole JSON lines of a log file that may end in the middle of one."""
    good = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        with contextlib.suppress(ValueError):
            json.loads(line)
            good.append(line)
    return good


def read_log(out_dir: str | Path) -> list[dict[str, Any]]:
    """The rows with a loss of out_dir/log.jsonl: step, loss, loss_per_t_bin (10 numbers or None), n_per_t_bin, lr,
    grad_norm (means since the row before), seconds, seconds_left."""
    rows = [json.loads(line) for line in _lines(Path(out_dir) / "log.jsonl")]
    return [row for row in rows if "loss" in row]


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"


class _StopSignals:
    """Turns the first Ctrl-C or SIGTERM into a request to stop after the step; the second one acts at once."""

    def __init__(self):
        self.received, self.before = 0, {}

    def __enter__(self) -> _StopSignals:
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(ValueError):  # only the main thread may listen
                self.before[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: Any) -> None:
        self.received = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self.before = {}

    def __exit__(self, *exception) -> None:
        with contextlib.suppress(ValueError):
            self._restore()


# -------------------------------------------------------------------------------------------------------------- loop


@dataclass(frozen=True)
class TrainResult:
    """What a run left.

    step: updates done. status: 'finished', or 'paused' when `until` was reached first. checkpoint: its folder.
    notes: what the run had to say, such as a broken checkpoint that it stepped over.
    """

    step: int
    status: str
    checkpoint: Path
    out_dir: Path
    notes: tuple[str, ...] = ()

    def export_ema(self, path: str | Path, dtype: torch.dtype = torch.bfloat16,
                   metadata: dict[str, Any] | None = None) -> Path:
        """`export_ema` of the last checkpoint."""
        return export_ema(self.checkpoint, path, dtype, metadata)

    def ema_state(self) -> dict[str, torch.Tensor]:
        """The averaged weights, fp32, for `model.load_state_dict`."""
        from safetensors.torch import load_file

        return load_file(self.checkpoint / "ema.safetensors")


def train(model: torch.nn.Module, loss_fn: Callable, data: Any, config: TrainConfig, resume: bool = True,
          on_sample: Callable | None = None, until: int | None = None) -> TrainResult:
    """Train `model` in place up to `config.steps`, from the newest whole checkpoint in `config.out_dir` if any.

    A parameter with an attribute `lr_scale` (a tensor of its shape, factors on its moves) learns faster or slower, entry by entry.

    Args:
        loss_fn: (model, batch, noise: SampleNoise) -> (loss, {"t": (b,) in [0, 1], "per_sample": (b,)}); the loss must
            be a mean over the samples.
        data: has `__len__` and `batch(indices: int64 (b,) on the CPU)`, which returns a tensor or a dict of tensors.
        resume: False demands an out_dir without checkpoints (they are never overwritten).
        on_sample: (model with the averaged weights, in eval mode, step) called every `sample_every` steps in the main
            process; numbers in a dict that it returns are logged. Its pictures belong below out_dir.
        until: pause after this step, with the learning rate still planned for `config.steps`.

    Returns:
        TrainResult. In the model are the last weights, not the averaged ones.

    Raises:
        MotionLabError: a loss or gradient that is not finite (no update is made with it and the last checkpoint stays);
            a checkpoint of another model or run, or none that can be read; a batch that the processes cannot share;
            a loss_fn that returns something else.
        KeyboardInterrupt: after Ctrl-C, when the step is finished and its checkpoint written (SystemExit on SIGTERM).
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    run = _Run(_accelerator(config), model, loss_fn, data, config, on_sample)
    run.start(resume)
    try:
        with _StopSignals() as signals:
            return run.loop(min(config.steps, until or config.steps), signals)
    finally:
        run.log.close()


def _accelerator(config: TrainConfig):
    """Precision comes from `config.bf16` alone, whatever the user's accelerate configuration says."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedDataParallelKwargs

    if int(os.environ.get("WORLD_SIZE", 1)) == 1:  # a notebook may have trained on another device before
        AcceleratorState._reset_state(reset_partial_state=True)
    wrapping = DistributedDataParallelKwargs(find_unused_parameters=config.find_unused_parameters)
    return Accelerator(cpu=config.cpu, mixed_precision="no", kwargs_handlers=[wrapping])


class _Run:
    """The moving parts of one call of `train`."""

    def __init__(self, accelerator, model, loss_fn, data, config: TrainConfig, on_sample):
        self.accelerator, self.config = accelerator, config
        self.loss_fn, self.data, self.on_sample = loss_fn, data, on_sample
        self.out_dir, self.main = Path(config.out_dir), accelerator.is_main_process
        self._share_batch()
        self.model = accelerator.prepare(model)
        self.bare = accelerator.unwrap_model(self.model, keep_torch_compile=False)
        self.optimizers, self.ema = _optimizers(self.bare, config), _Ema(self.bare, config.ema)
        self.params = [p for p in self.bare.parameters() if p.requires_grad]
        self.cursor = DataCursor(len(data), config.seed)
        self.step, self.checkpoint, self.notes, self.window = 0, None, [], _Window()

    def _share_batch(self) -> None:
        if len(self.data) == 0:
            raise MotionLabError("The training data is empty.", fix="Give data with len(data) > 0.")
        size, parts, rank = self.config.batch_size, self.accelerator.num_processes, self.accelerator.process_index
        if size % parts:
            raise MotionLabError(f"batch_size {size} cannot be shared by {parts} processes.",
                                 fix=f"Choose a multiple of {parts}.")
        self.positions = range(rank * size // parts, (rank + 1) * size // parts)

    # -- beginning

    def start(self, resume: bool) -> None:
        found, broken = _latest(self.out_dir)
        if found is not None and not resume:
            raise MotionLabError(f"{self.out_dir} already has a checkpoint, {found.name}.",
                                 fix="Go on with resume=True, or choose another out_dir.")
        if found is not None:
            self._load(found)
        self.accelerator.wait_for_everyone()  # all have looked before the main process moves anything
        if self.main:
            self._tidy(broken)
        self.log = _Log(self.config, self.main, self.step)
        for _, problem in broken:
            self.notes.append(f"{problem}; going on from {found.name}.")
            self.log.note(self.step, self.notes[-1])

    def _load(self, path: Path) -> None:
        state, tensors = _read(path)
        _check_same_run(path, state, self.config, len(self.data))
        _check_same_model(path / "model.safetensors", tensors["model.safetensors"], self.bare)
        self.bare.load_state_dict(tensors["model.safetensors"])
        _copy_into(self.ema.mean, tensors["ema.safetensors"])
        _unflatten(self.optimizers, tensors["optimizer.safetensors"])
        self.step, self.checkpoint = state["step"], path

    def _tidy(self, broken: list[tuple[Path, str]]) -> None:
        (self.out_dir / "checkpoints").mkdir(parents=True, exist_ok=True)
        for path, _ in broken:
            target = path.with_name(f"broken_{path.name}")
            shutil.rmtree(target, ignore_errors=True)
            os.rename(path, target)
        for path in (self.out_dir / "checkpoints").glob("unfinished_*"):
            shutil.rmtree(path, ignore_errors=True)
        self.config.to_yaml(self.out_dir / "config.yaml")

    # -- steps

    def loop(self, until: int, signals: _StopSignals) -> TrainResult:
        self.model.train()
        while self.step < until:
            stop = self._update(signals)
            self._after_step(until, stop)
            if stop:
                raise KeyboardInterrupt if stop == signal.SIGINT else SystemExit(128 + stop)
        if self.checkpoint is None or self.checkpoint.name != f"step_{self.step:08d}":
            self._save()
        status = "finished" if self.step >= self.config.steps else "paused"
        return TrainResult(self.step, status, self.checkpoint, self.out_dir, tuple(self.notes))

    def _update(self, signals: _StopSignals) -> int:
        """One step; returns the stop signal that any process received, else 0."""
        _set_lr(self.optimizers, lr_factor(self.config, self.step))
        self.bare.zero_grad(set_to_none=True)  # here, not after: a run that stopped on NaN may have left gradients
        loss, t, per_sample = self._forward()
        self.accelerator.backward(loss)
        norm = torch.nn.utils.clip_grad_norm_(self.params, self.config.grad_clip or math.inf)
        loss, t, per_sample, norm, stop = self._agree(loss, t, per_sample, norm, signals.received)
        self._demand_finite(loss, t, per_sample, norm)
        with _scaled_moves(self.params):
            for optimizer in self.optimizers.values():
                optimizer.step()
        self.ema.update(self.step)
        self.window.add(loss, t, per_sample, norm)
        self.step += 1
        return stop

    def _forward(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        from accelerate.utils import send_to_device

        size, device, seed = self.config.batch_size, self.accelerator.device, self.config.seed
        first = self.step * size
        indices = self.cursor.indices(range(first + self.positions.start, first + self.positions.stop))
        batch = send_to_device(self.data.batch(indices), device)
        torch.manual_seed(_seed_of("global", seed, self.step, self.accelerator.process_index))
        noise = SampleNoise(seed, self.step, self.positions, device)
        with autocast(device, self.config.bf16):
            returned = self.loss_fn(self.model, batch, noise)
        return _check_returned(returned, len(self.positions))

    def _agree(self, loss, t, per_sample, norm, signal_number: int):
        """Put the processes' samples together in global order: every process then decides and logs the same."""
        device = self.accelerator.device
        scalars = [x.detach().to(device, torch.float32) for x in (loss, norm, torch.tensor(signal_number))]
        local = torch.cat([torch.stack(scalars), t.detach().to(device).float(), per_sample.detach().to(device).float()])
        rows = self.accelerator.gather(local[None]).cpu().double()  # one transfer per step
        b = len(self.positions)
        stop = int(rows[:, 2].max())
        return float(rows[:, 0].mean()), rows[:, 3:3 + b].flatten(), rows[:, 3 + b:].flatten(), float(rows[0, 1]), stop

    def _demand_finite(self, loss: float, t: torch.Tensor, per_sample: torch.Tensor, norm: float) -> None:
        bad = ~torch.isfinite(per_sample)
        if math.isfinite(loss) and math.isfinite(norm) and not bad.any():
            return
        what = "gradient" if math.isfinite(loss) and not bad.any() else "loss"
        times = ", ".join(f"{x:.3f}" for x in (t[bad] if bad.any() else t)[:8])
        last = self.checkpoint
        kept = f"{last} is the last good checkpoint" if last else "no checkpoint had been written yet"
        text = f"The {what} is not finite at step {self.step + 1} (t = {times}); {kept}."
        self.log.note(self.step, text)
        raise MotionLabError(text, fix="Lower lr or muon_lr, lengthen the warm-up, or look at those samples; "
                                       "the same call goes on from the last checkpoint.")

    # -- between steps

    def _after_step(self, until: int, stop: int) -> None:
        every = self.config
        save = stop or _due(self.step, every.checkpoint_every) or self.step == until
        if save or _due(self.step, every.log_every):  # windows end at checkpoints: a resumed run logs the same rows
            row = {**self.window.row(), "lr": every.lr * lr_factor(every, self.step - 1)}
            self.log.progress(self.step, until, row)
            self.window = _Window()
        if save:
            self._save()
        if self.on_sample and _due(self.step, every.sample_every) and not stop:
            self._sample()

    def _save(self) -> None:
        self.checkpoint = self.out_dir / "checkpoints" / f"step_{self.step:08d}"
        if self.main:
            tensors = {"model.safetensors": self.bare.state_dict(), "ema.safetensors": self.ema.state(self.bare),
                       "optimizer.safetensors": _flatten(self.optimizers)}
            _write_checkpoint(self.out_dir, self.step, tensors, {
                "config": dataclasses.asdict(self.config), "data_length": len(self.data),
                "data_cursor": self.step * self.config.batch_size, "rng": {"seed": self.config.seed, "step": self.step},
                "processes": self.accelerator.num_processes})
        self.accelerator.wait_for_everyone()

    def _sample(self) -> None:
        if self.main:
            self.bare.eval()
            with torch.no_grad(), self.ema.swapped_in():
                numbers = self.on_sample(self.bare, self.step)
            self.bare.train()
            if isinstance(numbers, dict):
                named = {f"sample/{name}": float(value) for name, value in numbers.items()}
                self.log.write({"step": self.step, **named})
        self.accelerator.wait_for_everyone()


def _due(step: int, every: int) -> bool:
    return bool(every) and step % every == 0


def _check_returned(returned: Any, b: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    try:
        loss, parts = returned
        t, per_sample = parts["t"], parts["per_sample"]
        fits = loss.ndim == 0 and tuple(t.shape) == tuple(per_sample.shape) == (b,)
    except (TypeError, ValueError, KeyError, AttributeError):
        fits = False
    if not fits:
        raise MotionLabError(f"loss_fn must return (loss, {{'t': ({b},), 'per_sample': ({b},)}}) with a scalar loss.",
                             fix="Compare with the example at the top of motionlab.training.")
    return loss, t, per_sample
