"""The first two rungs of what a taught block gains: where its target says that each place goes, and where its features say so.

Both are measured against the exact transport of the prompts' true clips, near their subjects: nothing can follow flat ground.
"""
from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from motionlab.core.errors import MotionLabError
from motionlab.core.files import read_json
from motionlab.core.noise import prompt_seeds
from motionlab.correlation import unpacked
from motionlab.data.correlations import CELL, draw_shown, looked_at, seen, token_grid
from motionlab.data.prompts import Prompt, load_prompts
from motionlab.data.seen import TEACHERS
from motionlab.data.sidecars import Sidecar, encoded
from motionlab.data.sources import Listed, World
from motionlab.data.store import open_data
from motionlab.diffusion import interpolate
from motionlab.experiments.arms import Arm, Budget
from motionlab.experiments.finetune import bank_home, begin, trained, training_config, training_folder, tuning_bank
from motionlab.experiments.heads import fit_head
from motionlab.methods import open_method
from motionlab.methods.tapped import Tapped
from motionlab.metrics.correspondence import correspondence, errors_shared, motion_of
from motionlab.metrics.state_probe import probe_state
from motionlab.models.heads import add_head, head
from motionlab.models.pipe import Pipe
from motionlab.taps import features
from motionlab.training.checkpoints import latest

TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)
PART = 16                # clips at once
DEV = 64                 # clips that a temperature is chosen on
EVERY = 4                # frames per latent: what is compared with the truth stands a latent apart


def target_rows(arm: Arm, seed: int, home: Path) -> list[dict]:
    """Rows {item, arm, seed, motion, speed, hidden, hit, ...} of `metrics.correspondence`, of what the arm's block is taught.

    Its temperature is the settled one where the arm was trained, else chosen by the same rule, on `DEV` clips that judge nothing; the
    column tau says which.

    Raises:
        MotionLabError: a method that is taught nothing.
    """
    method, pipe, out = settled_method(arm, seed, home), begin(arm), []
    if arm.budget is None and method.judged():
        others = load_prompts("examples/plain", 2) if arm.measure.prompts == "examples" else load_prompts("dev/plain", DEV)
        wanted = (*method.targets_of(), *method.judged())
        method = method.chosen(encoded(Listed([p.clip(frames=pipe.frames) for p in others]), wanted, pipe), token_grid(pipe))
    for part in _parts(arm):
        batch, truth, known = _with_truth(pipe, part, method.targets_of())
        p, said = method.target_maps(batch, token_grid(pipe))
        rows = _rows(arm, seed, part, pipe, correspondence(p, truth, known & said))
        out += [row | {"tau": getattr(method, "tau", 0.0)} for row in rows]
    return out


def feature_rows(arm: Arm, seed: int, home: Path) -> list[dict]:
    """Rows {item, arm, seed, head, t, hit, ...} of what the tapped block's features say of held-out clips, through the arm's own head or
    through a probe's, at `TIMES`; with `measure.teacher` too how often they repeat that teacher's errors (`errors_shared`).

    Raises:
        MotionLabError: an arm without a head, and no probe for it.
    """
    pipe = trained(arm, seed, home)
    method, which = with_head(arm, seed, home, pipe)
    teacher = _method(arm.measure.teacher) if arm.measure.teacher else None
    out = []
    for part in _parts(arm):
        batch, truth, known = _with_truth(pipe, part, teacher.targets_of() if teacher else ())
        taught, said = teacher.target_maps(batch, token_grid(pipe)) if teacher else (None, known)
        for k, t in enumerate(TIMES):
            p = student_at(pipe, method, batch["x1"], part, t, k)
            found = correspondence(p, truth, known) | (errors_shared(p, taught, truth, known & said) if teacher else {})
            out += [row | {"head": which, "t": t} for row in _rows(arm, seed, part, pipe, found)]
    return out


def state_rows(arm: Arm, seed: int, home: Path) -> list[dict]:
    """Rows {item, arm, seed, motion, ..., limb, rotation} of `metrics.state_probe`, of what the arm's teacher sees: a tracker's forward
    pass, an image network's features. The last third of the clips is judged, by probes of the others.

    Raises:
        MotionLabError: a method whose teacher sees nothing that can be probed; too few clips.
    """
    method = settled_method(arm, seed, home)
    if getattr(method, "teacher", "") not in TEACHERS:
        raise MotionLabError(f"The teacher of arm '{arm.name}' has no state.", fix=f"Its teacher is one of {', '.join(TEACHERS)}.")
    pipe, parts, found, clips = begin(arm), _parts(arm), [], []
    for part in parts:
        source = Listed([p.clip(frames=pipe.frames) for p in part])
        shown = np.stack([draw_shown(source, i, method.teacher, EVERY) for i in range(len(source))])
        found.append(seen(shown, method.teacher, method.checkpoint).at(token_grid(pipe)).forward.cpu().numpy())
        clips += source.clips
    order, prompts = looked_at(pipe.frames, EVERY), [p for part in parts for p in part]
    rows = probe_state(np.concatenate(found), clips, order, CELL)
    return [{"item": prompts[row["clip"]].id, "arm": arm.name, "seed": seed, "kind": prompts[row["clip"]].kind}
            | motion_of(clips[row["clip"]], order, CELL) | {name: row[name] for name in ("limb", "rotation")} for row in rows]


@torch.no_grad()
def student_at(pipe: Pipe, method: Tapped, x1: torch.Tensor, prompts: list[Prompt], t: float, draw: int = 0) -> torch.Tensor:
    """Where the features at time t say that each place of clips x1 goes, (b, t - 1, h, w, n); noise by prompt and draw."""
    x_t = interpolate(pipe.noise(prompt_seeds([p.noise for p in prompts], draw), x1), x1, t)
    with features(pipe.denoiser, method.tap(pipe)) as tapped:
        pipe.velocity(x_t, torch.full((len(x1),), t), pipe.text([p.text for p in prompts]))
    hidden = next(iter(tapped.values()))[-1].float()
    return method.student_maps(head(pipe.denoiser, method.name)(hidden), token_grid(pipe))


def with_head(arm: Arm, seed: int, home: Path, pipe: Pipe) -> tuple[Tapped, str]:
    """(method, "own" or "fitted"): `pipe` gets the head of the arm's own training, or, where it had none, a probe's, fitted now."""
    if isinstance(arm.method, Tapped) and arm.method.weight and not arm.measure.probe:
        method, folder = settled_method(arm, seed, home), training_folder(arm, seed, home)
        add_head(pipe.denoiser, method.name, method.make_head, method.tap(pipe))
        stored = load_file(latest(folder / "training")[0] / "ema.safetensors")
        mine = {name: value for name, value in stored.items() if ".heads." in name}
        pipe.load_state_dict(mine, strict=False)
        return method, "own"
    probe = _method(arm.measure.probe)
    add_head(pipe.denoiser, probe.name, probe.make_head, probe.tap(pipe))
    known = json.dumps([arm.measure.probe, arm.weights, dataclasses.asdict(arm.budget) if arm.budget else None], sort_keys=True)
    folder = training_folder(arm, seed, home) if arm.budget else home / f"untrained-{arm.weights}"
    data = open_data(World(tuning_bank(frames=pipe.frames)), pipe, probe.wants(), bank_home())
    config = training_config(arm.budget or Budget(), seed, folder / "training")
    fit_head(probe, pipe, data, config, folder / f"probe-{hashlib.sha256(known.encode()).hexdigest()[:12]}")
    return probe, "fitted"


def settled_method(arm: Arm, seed: int, home: Path) -> Tapped:
    """The arm's method with what was settled before its training, where it was trained.

    Raises:
        MotionLabError: a method that is taught nothing.
    """
    if not isinstance(arm.method, Tapped):
        raise MotionLabError(f"Arm '{arm.name}' trains method {arm.method.name}, which no block is taught by.",
                             fix="Measure another arm, or give measure: {probe: {method: ...}} for its features.")
    found = read_json(training_folder(arm, seed, home) / "settled.json") if arm.budget else None
    return dataclasses.replace(arm.method, **found["settings"]) if found else arm.method


def _method(values: Mapping) -> Tapped:
    if not values.get("method"):
        raise MotionLabError("An arm without a head of its own is to be probed, and no probe is named.",
                             fix="Write measure: {probe: {method: ..., teacher: ...}}.")
    return open_method(values["method"], **{name: value for name, value in values.items() if name != "method"})


def _parts(arm: Arm) -> list[list[Prompt]]:
    prompts = load_prompts(arm.measure.prompts, arm.measure.n or None)
    return [prompts[k:k + PART] for k in range(0, len(prompts), PART)]


def _with_truth(pipe, prompts, sidecars):
    """(batch of the prompts' true clips, exact transport, cells near the subject of which it is known)."""
    source = Listed([p.clip(frames=pipe.frames) for p in prompts])
    batch = encoded(source, (*sidecars, Sidecar("transport", {"where": "subject"}, key="truth")), pipe)
    truth = unpacked(batch["truth"], token_grid(pipe), outside=0.0)
    return batch, truth.nan_to_num(), truth.isfinite().all(-1)


def _rows(arm, seed, prompts, pipe, found):
    out = []
    for i, prompt in enumerate(prompts):
        clip = prompt.clip(frames=pipe.frames)
        about = motion_of(clip, looked_at(len(clip.frames), EVERY), CELL)
        out.append({"item": prompt.id, "arm": arm.name, "seed": seed, "kind": prompt.kind} | about
                   | {name: float(values[i]) for name, values in found.items()})
    return out
