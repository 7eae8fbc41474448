"""A clip between two pictures (card 5.2): LoRAs and noises of the ends, one text per frame, both branches, fused at every step."""
from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from motionlab.core.errors import MotionLabError, one_of
from motionlab.core.noise import prompt_noise, stream_seeds
from motionlab.models.exchange import Exchange
from motionlab.models.pipe import FRAMES_OF, Inputs, Pipe
from motionlab.models.row_lora import MIXES, Factors, RowLora, spatial_projections
from motionlab.papers.vtg.branches import OPTIONS, Branches, EndLoras, framewise_text, read_by_pictures
from motionlab.papers.vtg.ends import fit_loras, inverted, load_ends, name_of, save_ends
from motionlab.papers.vtg.interpolation import STARTS, frame_lerp, frame_slerp, frame_weights, invert, start_noise, text_of_frames
from motionlab.papers.vtg.motion import FUSIONS, fusion_weights, reverse

ENDS, TEXTS = ("both", "one"), ("one", "slerp")


@dataclass(frozen=True)
class Settings:
    """What a transition is sampled with; the defaults are the generator's own way, with both ends given and one caption.

    start: "iid"; "slerp" or "lerp" of the inverted ends; "true", the true clip inverted (a control). g: `start_noise`'s knob.
    early: 0, or the share of the way, counted in sigma = 1 - t, after which the interpolated ends replace what was sampled (O1).
    text: "one" caption, the first; "slerp" of both, frame by frame. lora: rank of the ends' LoRAs, 0 for none; lora_steps, lora_lr: of
    their fit; mix: product | factor (O5). option: of `Branches`: none | E | R | P; shared: whether E shares q and k. fusion, lam: of
    `fusion_weights`. ends: "both", or "one" a branch (O11). renoise: repeats of a step in the first half, noised again before each
    (Generative Inbetweening). swapped: the frames' own noise in the other order, for a run whose ends are swapped.
    """

    start: str = "iid"
    g: float = 1.0
    early: float = 0.0
    text: str = "one"
    lora: int = 0
    lora_steps: int = 200
    lora_lr: float = 2e-4
    mix: str = "product"
    option: str = "none"
    shared: bool = True
    fusion: str = "constant"
    lam: float = 0.5
    ends: str = "both"
    renoise: int = 0
    swapped: bool = False

    def __post_init__(self):
        known_values = {"start": (*STARTS, "true"), "text": TEXTS, "mix": MIXES, "option": OPTIONS, "fusion": FUSIONS, "ends": ENDS}
        for name, known in known_values.items():
            one_of(getattr(self, name), known, f"{name} of a transition:")
        if not 0 <= self.early < 1 or self.lora < 0 or self.renoise < 0 or not 0 <= self.g <= 1 or not 0 <= self.lam <= 1:
            raise MotionLabError(f"early {self.early}, lora {self.lora}, renoise {self.renoise}, g {self.g}, lam {self.lam}: "
                                 "one is out of range.",
                                 fix="early is in [0, 1), lora and renoise 0 or more, g and lam in [0, 1].")


@dataclass(frozen=True)
class Pair:
    """A batch of pairs: captions of both ends, a noise seed each; pictures (b, 3, h, w) in [-1, 1], or None (text alone)."""

    texts: Sequence[str]
    texts_last: Sequence[str]
    seeds: Sequence[int]
    first: torch.Tensor | None = None
    last: torch.Tensor | None = None


def check_pairs(pipe: Pipe, pair: Pair, s: Settings) -> None:
    """Warns of a picture that is both ends of its pair.

    Raises:
        MotionLabError: pairs that cannot be sampled with these settings, before anything long starts.
    """
    given = [x for x in (pair.first, pair.last) if x is not None]
    if len(given) == 2 and pair.first.shape != pair.last.shape:
        raise MotionLabError(f"The two ends have the sizes {tuple(pair.first.shape)} and {tuple(pair.last.shape)}.",
                             fix="Give two pictures of one size.")
    if len({len(pair.texts), len(pair.texts_last), len(pair.seeds), *map(len, given)}) != 1:
        raise MotionLabError(f"{len(pair.texts)} and {len(pair.texts_last)} captions, {len(pair.seeds)} seeds and {list(map(len, given))} "
                             "pictures were given.", fix="Give one of each per pair; a pair of one caption has it twice.")
    twice = [k for k, (a, b) in enumerate(zip(*given)) if torch.equal(a, b)] if len(given) == 2 else []
    if twice:
        warnings.warn(f"Pair {twice[0]} has one picture twice: its clip need not move.", stacklevel=2)
    if pipe.shape[0] < 3:
        raise MotionLabError(f"A clip of {pipe.shape[0]} latent frames has nothing between its ends.", fix="Ask for three or more.")
    if len(given) < 2 and (s.start in ("slerp", "lerp") or s.lora or s.ends == "one"):
        raise MotionLabError("Interpolated noises, LoRAs of the ends and branches of one end each need both pictures.",
                             fix="Give first and last.")
    if (s.lora or s.start in ("slerp", "lerp")) and pipe.modes and FRAMES_OF[pipe.modes[0]]:
        raise MotionLabError(f"'{pipe.name}' ({pipe.kind}) makes no clip without known frames, so that no picture alone can be inverted or "
                             "learned by a LoRA.", fix="Leave out lora, and start with iid.")
    if (s.text == "slerp" and not read_by_pictures(pipe)) or s.lora:
        framewise_text(pipe, pipe.text([""]))


@torch.no_grad()
def transitions(pipe: Pipe, prompts: Sequence[str], seeds: Sequence[int], s: Settings, w: float | None = None, *, first=None, last=None,
                prompts_last: Sequence[str] | None = None, true: torch.Tensor | None = None, mode: str = "", batch: int = 16,
                **how) -> torch.Tensor:
    """Latents (n, f, c, h, w) of any number of pairs: `transition` of one batch after the other, all of them checked first.

    Args:
        first, last: pictures (n, 3, h, w). prompts_last: captions of the last ones, by default `prompts`. mode: which of the pictures
            the generator is shown, "" for those that are given. true, how: as of `transition`.
    """
    if mode:
        shown = FRAMES_OF[one_of(mode, pipe.modes, f"conditioning mode of {pipe.kind}")]
        first, last = first if "first" in shown else None, last if "last" in shown else None
    lasts = list(prompts if prompts_last is None else prompts_last)
    parts = [slice(k, k + batch) for k in range(0, len(prompts), batch)]
    pairs = [Pair(list(prompts[p]), lasts[p], list(seeds[p]), *(None if a is None else a[p] for a in (first, last))) for p in parts]
    for pair in pairs:
        check_pairs(pipe, pair, s)
    if s.lora and not hasattr(pipe, "row_lora"):
        pipe.row_lora = RowLora(pipe.denoiser, spatial_projections(pipe.denoiser))
    rows, exchange = getattr(pipe, "row_lora", None), getattr(pipe, "exchange", None)
    return torch.cat([transition(pipe, pair, s, w, rows=rows, exchange=exchange, true=None if true is None else true[p], **how).cpu()
                      for pair, p in zip(pairs, parts)])


@torch.no_grad()
def transition(pipe: Pipe, pair: Pair, s: Settings, w: float | None = None, *, steps: int | None = None, solver: str | None = None,
               exchange: Exchange | None = None, rows: RowLora | None = None, kept: Path | None = None, true: torch.Tensor | None = None,
               reversed_time: bool = True, callback: Callable | None = None) -> torch.Tensor:
    """Latents (b, f, c, h, w) of the clips between pairs.

    Args:
        w, steps, solver: by default the generator's usual ones. exchange, rows: the network's hooks, where settings need them.
        kept: a folder in which LoRAs and inverted noises are kept, a file per batch. true: latents of the true clips, for start "true".
        reversed_time: False: the second branch runs forwards too, and is shown what the first one is.

    Raises:
        MotionLabError: as `check_pairs`; a kept file of other ends.
    """
    check_pairs(pipe, pair, s)
    w, grid, f = pipe.w if w is None else w, pipe.grid(steps), pipe.shape[0]
    mode = mode_of(pipe, pair, s)
    begun = pipe.begin(list(pair.texts), list(pair.seeds), mode, pair.first, pair.last)
    loras, noises = _of_ends(pipe, pair, s, grid, rows, kept)
    known, second = _both_known(pipe, pair, s, mode, begun.known, reversed_time)
    u = Branches(pipe, _text(pipe, pair, s, f), known, second, w, fusion_weights(f, s.lam, s.fusion), exchange if s.shared else None,
                 s.option, reversed_time, loras)
    own = reverse(begun.x0) if s.swapped else begun.x0
    if s.start == "true":
        x0 = _inverted_clip(pipe, true, u, grid)
    elif noises is None:
        x0 = own
    else:
        x0 = _joined(noises, own, s)
    if s.early:
        grid = torch.cat([torch.tensor([s.early], dtype=grid.dtype), grid[grid > s.early + 1e-9]])
    if s.renoise:
        return renoised(u, x0, grid, s.renoise, pair.seeds)
    return pipe.solve(u, x0, steps=steps, solver=solver, grid=grid if s.early else None, callback=callback, draws=begun.draws)


def mode_of(pipe: Pipe, pair: Pair, s: Settings) -> str:
    """Which known frames a branch is given: both where the generator takes both, else its own end; "" for none."""
    if pair.first is None:
        return ""
    return "first_last" if s.ends == "both" and pair.last is not None and "first_last" in pipe.modes else "first"


def _text(pipe, pair, s, f) -> Inputs:
    text = pipe.text(list(pair.texts))
    if s.text == "one" or read_by_pictures(pipe):
        return text
    return {"states": text_of_frames(framewise_text(pipe, text), framewise_text(pipe, pipe.text(list(pair.texts_last))), frame_weights(f))}


def _both_known(pipe, pair, s, mode, known, reversed_time) -> tuple[Inputs, Inputs]:
    """The ends as the forward branch is shown them, and as the second one is, in its own order of time.

    Of both ends the mirrored condition, latents in the order of the reversed clip (card 8.4); of one, the branch's own.
    """
    second = known
    if reversed_time:
        second = {} if not mode or s.option == "none" else _mirrored_known(pipe, pair, mode, known)
    if s.text == "one" or not read_by_pictures(pipe) or pair.last is None:
        return known, second
    last = second if second and second is not known else pipe.mode_inputs("first", pair.last, None)
    seen = frame_slerp(known["seen"], last["seen"], frame_weights(pipe.shape[0]))
    turned = second | {"seen": seen.flip(1) if reversed_time else seen} if second else {}
    return known | {"seen": seen}, turned


def _mirrored_known(pipe, pair, mode, known) -> Inputs:
    if pair.last is None:
        raise MotionLabError("A branch that runs backwards begins at the last frame, and none was given.", fix="Give last.")
    if mode == "first_last":
        return {name: value.flip(1) for name, value in known.items()}
    return pipe.mode_inputs(mode, pair.last, None)


def _of_ends(pipe, pair, s, grid, rows, kept) -> tuple[EndLoras | None, torch.Tensor | None]:
    """LoRAs of both ends, and their latents carried to noise (2b, c, h, w): made, or read where they were kept, each in a file of its own,
    so that runs that differ in the noise alone share their LoRAs."""
    wants_noise = s.start in ("slerp", "lerp")
    if not s.lora and not wants_noise:
        return None, None
    pictures, captions = torch.cat([pair.first, pair.last]), [*pair.texts, *pair.texts_last]
    z, text = pipe.encode_video(pictures[:, None])[:, 0], pipe.text(captions)
    about, factors, noises = {"lora": s.lora, "steps": s.lora_steps, "lr": s.lora_lr} if s.lora else {}, None, None
    if s.lora:
        _, factors = _kept(kept, name_of(pictures, captions, pipe, **about), lambda: (None, _fitted(pipe, z, text, s, rows)))
    if wants_noise:
        about |= {"noise": True, "until": s.early, "grid": len(grid)}
        noises, _ = _kept(kept, name_of(pictures, captions, pipe, **about),
                          lambda: (inverted(pipe, z, text, grid, s.early, rows, factors), None))
    if factors is None:
        return None, noises
    first, last = ({layer: tuple(x[part] for x in pair_of) for layer, pair_of in factors.items()}
                   for part in (slice(None, len(pair.texts)), slice(len(pair.texts), None)))
    return EndLoras(rows, first, last, frame_weights(pipe.shape[0]), s.mix), noises


def _kept(folder, name, make) -> tuple[torch.Tensor | None, Factors | None]:
    """(noise, factors) of folder/<name>.safetensors; made, and written there, where there is none."""
    path = None if folder is None else Path(folder) / f"{name}.safetensors"
    if path is not None and path.is_file():
        return load_ends(path, name)
    found = make()
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_ends(path, name, *found)
    return found


@torch.enable_grad()
def _fitted(pipe, z, text, s, rows) -> Factors:
    return fit_loras(pipe, rows, z, {name: value.detach() for name, value in text.items()}, s.lora, s.lora_steps, s.lora_lr)


def _joined(noises, own, s):
    """The frames' start between two inverted ends: noise, or at `early` the states of that time (which nothing else is mixed into)."""
    z_1, z_n = noises.to(own).chunk(2)
    if s.early:
        return (frame_slerp if s.start == "slerp" else frame_lerp)(z_1, z_n, frame_weights(own.shape[1]))
    return start_noise(z_1, z_n, own, s.start, s.g)


def _inverted_clip(pipe, true, u, grid):
    """The true clip carried to noise as a whole, under the conditions that it is sampled with, unguided."""
    if true is None:
        raise MotionLabError("A start from the true clip needs its latents.", fix="Give true=, (b, f, c, h, w).")
    return invert(replace(u, w=0.0), true.to(pipe.device), grid)


def renoised(u: Callable, x: torch.Tensor, grid: torch.Tensor, repeats: int, seeds: Sequence[int], until: float = 0.5) -> torch.Tensor:
    """Euler's method in which every step of the first `until` of the steps is taken 1 + `repeats` times, noised again in between.

    From t' back to t < t' a state is (t / t') x + noise of deviation sqrt((1 - t)^2 - (t (1 - t') / t')^2), so that it is distributed
    as at t. At t = 0 nothing of it would be left: the first step is not repeated. Source: Generative Inbetweening (card 3.6).
    """
    times = [float(t) for t in grid]
    for k, (t, following) in enumerate(zip(times, times[1:])):
        rounds = repeats if t > 0 and k < until * (len(times) - 1) else 0
        start = x
        for again in range(rounds + 1):
            x = start + (following - t) * u(start, torch.full((len(start),), t, device=start.device))
            if again < rounds:
                left = t / following
                fresh = prompt_noise(stream_seeds(seeds, 1000 + 100 * k + again), x.shape[1:]).to(x)
                start = left * x + max(0.0, (1 - t) ** 2 - (left * (1 - following)) ** 2) ** 0.5 * fresh
    return x
