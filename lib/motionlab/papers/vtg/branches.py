"""Both branches in one batch (card 3.5, 5.2): guidance first, fusion second, each frame's text and LoRAs in either order of time."""
from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

import torch

from motionlab.core.errors import MotionLabError, one_of
from motionlab.diffusion import cfg
from motionlab.models.exchange import Exchange
from motionlab.models.frame_text import per_frame
from motionlab.models.pipe import Inputs, Pipe, joined
from motionlab.models.residuals import residuals
from motionlab.models.row_lora import Factors, RowLora
from motionlab.papers.vtg.motion import fuse, reverse

OPTIONS = ("E", "R", "P", "none")


@dataclass(frozen=True)
class EndLoras:
    """The LoRAs of both ends, a row per clip, and how they are mixed: shares (f,) of the last one's. `rows`: the network's hooks."""

    rows: RowLora
    first: Factors
    last: Factors
    shares: torch.Tensor
    mix: str = "product"


@dataclass(frozen=True)
class Branches:
    """The model (x, t) -> u of a pair of ends.

    Attributes:
        text: of the pipe, one per clip or one per frame. known: what the forward branch is shown. backward_known: what the backward one
            is, in its own order of time.
        w: text guidance, 0 for none. exchange: the pipe's `Exchange`; None where nothing is shared.
        option: how the second branch runs (card 8.1). "E": backwards, with the first one's q and k (its own without `exchange`); "P":
            backwards, everything its own; "R": backwards with its positions reversed too, which is the forward computation under the
            other condition; "none": there is none.
        weights: (f,), the second branch's share of every frame. reversed_time: False: the second branch runs forwards and is shown
            `backward_known` in that order (so that two forward branches are fused).
        loras: of the two ends, mixed per frame in both branches.
    """

    pipe: Pipe
    text: Inputs
    known: Inputs
    backward_known: Inputs
    w: float
    weights: torch.Tensor
    exchange: Exchange | None = None
    option: str = "E"
    reversed_time: bool = True
    loras: EndLoras | None = None

    def __post_init__(self):
        one_of(self.option, OPTIONS, "second branch")

    def __call__(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        t = torch.as_tensor(t, device=x.device).expand(len(x))
        halves = self._halves(x, self.text, self.known, False) + (self._second(x) if self.option != "none" else [])
        rows, texts, known, turned = (list(column) for column in zip(*halves))
        u = self._run(torch.cat(rows), torch.cat([t] * len(rows)), joined(*texts), joined(*known), turned).chunk(len(rows))
        guided = [cfg(u[k], u[k + 1], self.pipe.weight(self.w, x)) for k in range(0, len(u), 2)] if self.w else list(u)
        if len(guided) == 1:
            return guided[0]
        return fuse(guided[0], guided[1] if turned[-1] else reverse(guided[1]), self.weights)

    def _second(self, x):
        if not self.reversed_time:
            return self._halves(x, self.text, self.backward_known, False)
        if self.option == "R":
            return self._halves(x, self.text, {name: value.flip(1) for name, value in self.backward_known.items()}, False)
        return self._halves(reverse(x), mirrored_text(self.text), self.backward_known, True)

    def _halves(self, x, text, known, turned):
        """The batch's parts of one branch: with the text and, for guidance, without; turned: whether its frames run backwards."""
        parts = [(x, text, known, turned)]
        if self.w:
            parts.append((x, null_text(self.pipe, text), self.pipe.null_known(known), turned))
        return parts

    def _run(self, x, t, text, known, turned):
        with ExitStack() as stack:
            stack.enter_context(residuals(self.pipe.denoiser, "off" if self.option == "none" else "second"))
            if self.exchange is not None and self.option == "E":
                stack.enter_context(self.exchange.lockstep())
            if self.loras is not None:
                n, loras = len(x) // len(turned), self.loras
                shares = torch.cat([(loras.shares.flip(0) if flipped else loras.shares).expand(n, -1) for flipped in turned])
                rows = [{name: tuple(f.repeat(len(turned), 1, 1) for f in pair) for name, pair in side.items()}
                        for side in (loras.first, loras.last)]
                stack.enter_context(loras.rows.use(*rows, shares.to(x.device), loras.mix))
            return self.pipe.velocity(x, t, text, known)


def framewise_text(pipe: Pipe, text: Inputs) -> torch.Tensor:
    """What cross-attention reads of texts, (b, words, d).

    Raises:
        MotionLabError: a generator that reads one text for the whole clip.
    """
    if getattr(pipe, "text_per_frame", False):                   # a snapshot's text is its states
        return text["states"]
    if hasattr(pipe, "pipeline") or not callable(getattr(pipe, "states", None)):
        raise MotionLabError(f"'{pipe.name}' ({pipe.kind}) reads one text for the whole clip.",
                             fix="Use a generator with a text per frame, or one caption.")
    return pipe.states(text)


def read_by_pictures(pipe: Pipe) -> bool:
    """Whether an image encoder's view stands where others have a text (Stable Video Diffusion)."""
    return getattr(pipe, "text_parts", None) == ()


def mirrored_text(text: Inputs) -> Inputs:
    """Texts of a branch that runs backwards: those that each frame has of its own, reversed."""
    return {name: value.flip(1) if value.dim() == 4 else value for name, value in text.items()}


def null_text(pipe: Pipe, text: Inputs) -> Inputs:
    """The text that says nothing, in the form of `text`; the same for all frames."""
    n = len(next(iter(text.values())))
    nothing = pipe.text([""] * n)
    if "states" not in text or (text["states"].dim() == 3 and "states" in nothing):
        return nothing
    states = framewise_text(pipe, nothing)
    return {"states": per_frame(states, text["states"].shape[1]) if text["states"].dim() == 4 else states}


def only_first(known: Inputs, both: torch.Tensor) -> Inputs:
    """Known frames of the kit's generators with all but the first taken away, where `both` (b,) is off."""
    mask = known["cond_mask"].clone()
    mask[:, 1:] &= both.to(mask.device)[:, None]
    return known | {"cond_mask": mask}
