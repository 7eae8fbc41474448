"""No cure: the generator's own training, on more clips. What every cure is compared with."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch

from motionlab.data.sidecars import Sidecar
from motionlab.diffusion import data_estimate, interpolate, velocity
from motionlab.methods.base import Method
from motionlab.models.pipe import Pipe


@dataclass(frozen=True)
class Recipe:
    """What the flow-matching loss draws, per clip.

    length: latent frames of the clips, 0 for all; shorter: share of the batches that are cut to a shorter length, so that one
    checkpoint keeps serving all of them. text_dropout, attribute_dropout: of the whole text, of single attributes of it.
    first, first_last: probabilities that the first frame, or the first and the last, are given.
    """

    length: int = 0
    shorter: float = 0.0
    text_dropout: float = 0.15
    attribute_dropout: float = 0.05
    first: float = 0.2
    first_last: float = 0.1


class Prediction(NamedTuple):
    """What the network said of a batch, and of what: velocity u at x_t, (b, f, c, h, w) float32; t (b,); data x1 and noise x0."""

    u: torch.Tensor
    x_t: torch.Tensor
    t: torch.Tensor
    x1: torch.Tensor
    x0: torch.Tensor

    @property
    def v(self) -> torch.Tensor:
        """The velocity that it should have said."""
        return velocity(self.x0, self.x1)

    @property
    def x1_hat(self) -> torch.Tensor:
        """The clean clip that it points at."""
        return data_estimate(self.x_t, self.u, self.t)


def flow_matching_loss(recipe: Recipe, pipe: Pipe, beside: Callable | None = None, more: Callable | None = None,
                       weight: Callable | None = None) -> Callable:
    """`loss_fn` of `training.train`: mean over the clip of |u - v|^2, v = x1 - x0 (rectified flow).

    Known frames are the generator's to draw: `Pipe.draw_known`. Whatever a method draws besides comes after what every method
    draws, so that all of them see the same noise, times and dropouts.

    Args:
        beside: (batch, noise) -> further channels (b, f, n, h, w) that a widened network reads.
        more: (Prediction, batch, noise) -> (b,), what a method's loss adds to each clip's; weight: t (b,) -> (b,), what each clip's is
            times. Neither is part of "per_sample", so that logs of all methods tell the same quantity.
    """

    def loss_fn(model, batch, noise):
        length = _length(recipe, batch["x1"].shape[1], noise)
        x1 = batch["x1"][:, :length]
        t = pipe.times(noise)
        x0 = noise.randn(*x1.shape[1:])
        text = pipe.drop_text(batch["text"], noise, recipe.text_dropout, recipe.attribute_dropout)
        known = pipe.draw_known(batch | {"x1": x1}, noise, recipe.first, recipe.first_last)
        extra = () if beside is None else (beside(batch, noise),)
        x_t = interpolate(x0, x1, t)
        said = Prediction(model(x_t, t, text, known, *extra).float(), x_t, t, x1, x0)
        per_sample = (said.u - said.v).square().mean(dim=(1, 2, 3, 4))
        total = per_sample if weight is None else weight(t) * per_sample
        total = total if more is None else total + more(said, batch, noise)
        return total.mean(), {"t": t, "per_sample": per_sample}

    return loss_fn


def _length(recipe, whole, noise):
    """The batch's length: one length per batch, since clips of different lengths do not stack."""
    length = recipe.length or whole
    if recipe.shorter and float(torch.rand(1, generator=noise[0])) < recipe.shorter:
        return int(torch.randint(1, length, (1,), generator=noise[0]))
    return length


@dataclass(frozen=True)
class Plain(Method):
    """All weights, the diffusion loss, nothing else; fields as of `Recipe`. stills: known frames are pictures encoded alone."""

    name: ClassVar[str] = "plain"
    text_dropout: float = 0.15
    attribute_dropout: float = 0.05
    first: float = 0.2
    first_last: float = 0.1
    stills: bool = False

    def wants(self) -> tuple[Sidecar, ...]:
        return (Sidecar("stills"),) if self.stills else ()

    @property
    def recipe(self) -> Recipe:
        """What the loss draws."""
        return Recipe(0, 0.0, self.text_dropout, self.attribute_dropout, self.first, self.first_last)

    def loss(self, pipe: Pipe) -> Callable:
        return flow_matching_loss(self.recipe, pipe)
