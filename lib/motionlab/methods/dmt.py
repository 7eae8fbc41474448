"""Motion by guidance, without training (Yatim et al. 2024, DMT), in the form that DeT compares itself with (its card, section 6.6).

The source clip is inverted to noise. In the first steps of sampling, g and s being features of one block of the generated and of the
source clip at the same t, averaged over space, (f, C), the state x_t descends on

    E(x_t) = sum over frames i, j of |(g_i - g_j) - (s_i - s_j)|^2

Each move is the gradient brought to a root mean square of `rate`: features of other blocks and models have other sizes. (The release
moves by Adam, whose moves have the size of its rate too: 10 of 0.007 to 0.004 in each of the first 40 % of 50 steps, on the cosine of
the same differences.) Generation begins, as there, with the inverted noise's low spatial frequencies and the seed's high ones.

Inversion is Euler's method backwards on the sampler's own times, without guidance and under the null text: the source's caption is not
known here. The source's features are therefore the null text's, the generated clip's are its prompt's.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F

from motionlab import taps
from motionlab.core.errors import MotionLabError, one_of
from motionlab.data.sidecars import Sidecar
from motionlab.diffusion import data_estimate, inverted
from motionlab.methods.base import Method, Sampling
from motionlab.models.pipe import Inputs, Pipe
from motionlab.taps.layouts import find_transformer, selected_blocks

STARTS = ("low", "inverted", "noise")
LOWER = 4                                        # by how much latents shrink to keep low frequencies only, as in the release


@dataclass(frozen=True)
class Guiding(Sampling):
    """block: index in the order of execution, below 0: the middle one. rate: size of a move; moves: per step; share: of the steps, the
    first ones. begin: "low" (see above), "inverted" (all of the inverted noise: seeds no longer matter) or "noise" (the seed's own).

    Raises:
        MotionLabError: a value out of range; solver heun, whose steps evaluate twice.
    """

    block: int = -1
    rate: float = 0.02
    moves: int = 5
    share: float = 0.5
    begin: str = "low"

    def __post_init__(self):
        one_of(self.begin, STARTS, "noise to begin with")
        one_of(self.solver, ("", "euler", "own"), "solver of method dmt:")
        if self.moves < 0 or not self.rate >= 0 or not 0 <= self.share <= 1:
            raise MotionLabError(f"rate is {self.rate}, moves {self.moves} and share {self.share}.",
                                 fix="Give rate and moves of 0 or more and a share between 0 and 1.")


@dataclass(frozen=True)
class DMT(Method):
    """Nothing is trained, and `attach` only spares memory: no weight asks for a gradient. It samples with the source clip's latents,
    `given={"source": x1}`, a row per prompt."""

    name: ClassVar[str] = "dmt"
    tunes_base: ClassVar[bool] = False
    trains: ClassVar[bool] = False
    Sampling: ClassVar[type] = Guiding

    def truth(self, options: Guiding) -> tuple[Sidecar, ...]:
        return (Sidecar("x1", key="source"),)

    def model(self, pipe: Pipe, text: Inputs, known: Inputs, options: Guiding, given: dict | None = None) -> Callable:
        """Raises MotionLabError for known frames, latents of another shape, an unknown block, a network that taps do not know."""
        source = (given or {})["source"]
        if known:
            raise MotionLabError(f"Method {self.name} was given known frames, and inverting its source would need the source's own.",
                                 fix="Use a text-to-video generator, mode text.")
        if source.shape[1:] != torch.Size(pipe.shape) or len(source) != len(next(iter(text.values()))):
            raise MotionLabError(f"The source's latents are {tuple(source.shape)}; the clips to make are {tuple(pipe.shape)}.",
                                 fix="Give a row per prompt, encoded by this generator at this length and size.")
        return Guided(pipe, text, super().model(pipe, text, known, options), source, options)

    def steered(self, u: Guided, callback: Callable | None) -> Callable:
        """Go on from where the guidance moved the state to."""
        def edit(state):
            edits = {"x": u.moved}
            told = state | edits | {"x1_hat": data_estimate(u.moved, state["u"], state["t"])}
            return edits | ((callback(told) if callback else None) or {})

        return edit


class Guided:
    """(x, t) -> u at the state that x was moved to, which is kept in `moved`."""

    def __init__(self, pipe: Pipe, text: Inputs, u: Callable, source: torch.Tensor, options: Guiding):
        grid = pipe.grid(options.steps or None)
        self.pipe, self.text, self.u, self.options = pipe, text, u, options
        self.null = pipe.text([""] * len(source))
        self.path = inverted(lambda x, t: pipe.velocity(x, t, self.null), source, grid)
        self.until = float(grid[math.ceil(options.share * (len(grid) - 1))])
        self.block = options.block if options.block >= 0 else len(selected_blocks(*find_transformer(pipe.denoiser), None)) // 2
        self.moved = None

    def __call__(self, x, t):
        source = self.source_at(float(t[0]))
        if self.moved is None and self.options.begin != "noise":
            x = x + low(source - x) if self.options.begin == "low" else source
        if float(t[0]) < self.until and self.options.moves:
            s = self.features(source, t, self.null)
            for _ in range(self.options.moves):
                x = self.descend(x, t, s)
        self.moved = x
        return self.u(x, t)

    def descend(self, x, t, s):
        """x after one move."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            energy = difference_energy(self.features(x, t, self.text), s)
            (slope,) = torch.autograd.grad(energy.sum(), x)
        size = slope.square().mean((1, 2, 3, 4), keepdim=True).sqrt().clamp(min=1e-30)       # a slope of zero moves nothing
        return x.detach() - self.options.rate * slope / size

    def features(self, x, t, text):
        """g (b, f, C) float32 of the block, averaged over space; with gradient where that is on."""
        with self.pipe.autocast(), taps.features(self.pipe.denoiser, self.block, keep=lambda h: h.mean((2, 3)), detach=False) as seen:
            self.pipe(x, t, text)
        ((found,),) = seen.values()
        return found.float()

    def source_at(self, t: float) -> torch.Tensor:
        """The inverted source at the nearest of the times that it was inverted at: a scheduler may round its own."""
        return min(self.path, key=lambda known: abs(known[0] - t))[1]


def difference_energy(g: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
    """E (b,) of features g, s (b, f, C): |(g_i - g_j) - (s_i - s_j)|^2, summed over all pairs of frames."""
    gap = g - s
    return (gap[:, :, None] - gap[:, None]).square().sum((1, 2, 3))


def low(x: torch.Tensor) -> torch.Tensor:
    """Low spatial frequencies of x (b, f, c, h, w): a quarter of the size and back."""
    h, w = x.shape[-2:]
    less = F.interpolate(x.flatten(0, 1), (max(1, h // LOWER), max(1, w // LOWER)), mode="bilinear", antialias=True)
    return F.interpolate(less, (h, w), mode="bilinear").view_as(x)
