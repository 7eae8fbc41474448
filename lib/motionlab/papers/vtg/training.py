"""Training of the backward branch (card 5.3): the forward branch first, without gradient; L_BMP; L_RAR on the backward one's features."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from motionlab.core.noise import SampleNoise
from motionlab.diffusion import interpolate
from motionlab.models.exchange import Exchange
from motionlab.models.pipe import Inputs, Pipe
from motionlab.models.residuals import residuals, use_residuals
from motionlab.papers.vtg.alignment import Projector, rar_loss
from motionlab.papers.vtg.branches import mirrored_text, only_first
from motionlab.papers.vtg.motion import bmp_loss, reverse
from motionlab.taps.layouts import find_transformer


@dataclass(frozen=True)
class BackwardRecipe:
    """What the loss draws and adds. both: share of the clips of which both ends are seen, else one a branch, the first or the last.
    rar: weight of L_RAR; other: whether it aligns with the features of another clip of the batch."""

    both: float = 0.5
    text_dropout: float = 0.15
    attribute_dropout: float = 0.05
    rar: float = 0.0
    layer: str = "up_blocks.0"
    other: bool = False


@dataclass(frozen=True)
class Second:
    """The second branch of a pipe, which is trained, beside the first.

    Attributes:
        first: (x, t, text, known) -> u of the forward branch, which is frozen. exchange: that keeps its q and k, and hands them on; None:
            the second branch has its own. reversed_time: whether it runs backwards.
    """

    pipe: Pipe
    first: Callable
    exchange: Exchange | None
    recording: Exchange | None = None
    reversed_time: bool = True

    def __call__(self, model: Callable, x_t: torch.Tensor, t: torch.Tensor, text: Inputs, known: Inputs,
                 both: torch.Tensor) -> torch.Tensor:
        """The second branch's velocity, in its own order of time, at x_t (b, f, c, h, w) and t (b,).

        Args:
            model: the pipe as training wraps it. known: of both ends, or what either branch is shown, a pair. both: (b,), whether both are
                seen.
        """
        forward, backward = known if isinstance(known, tuple) else self._shown(known, both)
        if self.exchange is not None:
            with torch.no_grad(), (self.recording or self.exchange).recording():
                self.first(x_t, t, text, forward)
        if not self.reversed_time:
            return self._run(model, x_t, t, text, forward)
        return self._run(model, reverse(x_t), t, mirrored_text(text), backward)

    def _shown(self, known, both):
        return only_first(known, both), only_first({name: value.flip(1) for name, value in known.items()}, both)

    def _run(self, model, *inputs):
        if getattr(self.pipe.denoiser, "is_gradient_checkpointing", False):       # the backward pass runs layers again: states stay
            use_residuals(self.pipe.denoiser, "all")
            if self.exchange is not None:
                self.exchange.state = "replaying"
            return model(*inputs)
        with ExitStack() as stack:
            stack.enter_context(residuals(self.pipe.denoiser, "all"))
            if self.exchange is not None:
                stack.enter_context(self.exchange.replaying())
            return model(*inputs)


def backward_loss(recipe: BackwardRecipe, second: Second, projector: Projector | None = None, encoder: nn.Module | None = None) -> Callable:
    """`loss_fn` of `training.train`: L = L_BMP + rar L_RAR (card 3.4, 4), each per clip; "per_sample" is L_BMP.

    The batch's known frames are its own ends (`Pipe.draw_known`), so it holds x1 (and "stills" where latents see several frames); for
    the alignment "pictures" (b, F, 3, h, w) too, which `encoder.features` reads.
    """
    def loss_fn(model, batch, noise):
        u, x1, x0, t, seen = second_velocity(recipe, second, model, batch, noise)
        v = x1 - x0
        per_sample = bmp_loss(u, v if second.reversed_time else reverse(v))
        total = per_sample
        if recipe.rar:
            total = total + recipe.rar * alignment(second, projector, encoder, seen[0], batch["pictures"], recipe.other)
        return total.mean(), {"t": t, "per_sample": per_sample}

    return loss_fn


def second_branch(pipe: Pipe, apart: Pipe | None, exchange: Exchange | None, reversed_time: bool = True) -> Second:
    """The second branch of a pipe. apart: the frozen generator, where training moves the pipe's own weights instead of residuals."""
    if apart is None:
        return Second(pipe, _without_residuals(pipe), exchange, None, reversed_time)
    recording = None
    if exchange is not None:
        recording = apart.__dict__.setdefault("recording", None) or Exchange(apart.denoiser)
        apart.recording, recording.kept = recording, exchange.kept
    return Second(pipe, apart, exchange, recording, reversed_time)


def _without_residuals(pipe):
    def first(x_t, t, text, known):
        with residuals(pipe.denoiser, "off"):
            return pipe(x_t, t, text, known)

    return first


@torch.no_grad()
def branch_losses(second: Second, x_t: torch.Tensor, t: torch.Tensor, text: Inputs, data: dict[str, torch.Tensor],
                  x0: torch.Tensor) -> dict[str, torch.Tensor]:
    """{"loss", "one", "forward"}, (b,) each: L_BMP of the second branch with both ends seen and with its own only; the first one's loss."""
    pipe, v, n = second.pipe, data["x1"] - x0, len(x_t)
    known = pipe.draw_known(data, SampleNoise(0, 0, range(n), x_t.device), 0.0, 1.0)
    target = v if second.reversed_time else reverse(v)
    with pipe.autocast():
        found = {name: bmp_loss(second(pipe, x_t, t, text, known, torch.full((n,), seen)).float(), target)
                 for name, seen in (("loss", True), ("one", False))}
        u = second.first(x_t, t, text, known).float()
    return found | {"forward": (u - v).square().flatten(1).mean(1)}


@torch.no_grad()
def branch_velocities(second: Second, x_t: torch.Tensor, t: torch.Tensor, text: Inputs, x1: torch.Tensor) -> dict[str, torch.Tensor]:
    """What either branch says at x_t of clips x1 whose own ends are known, (b, f, c, h, w) each in the clip's order of time: "forward",
    "backward" with both ends seen, "forward_one", "backward_one" with the branch's own alone."""
    pipe, n, found = second.pipe, len(x_t), {}
    known = pipe.draw_known({"x1": x1}, SampleNoise(0, 0, range(n), x_t.device), 0.0, 1.0)
    with pipe.autocast():
        for ending, seen in (("", True), ("_one", False)):
            both = torch.full((n,), seen)
            found[f"forward{ending}"] = second.first(x_t, t, text, only_first(known, both)).float()
            said = second(pipe, x_t, t, text, known, both).float()
            found[f"backward{ending}"] = reverse(said) if second.reversed_time else said
    return found


def projector(pipe: Pipe, layer: str, encoder: nn.Module) -> Projector:
    """y_phi from a layer's width to the encoder's."""
    return Projector(layer_width(pipe, layer), encoder.width)


def second_velocity(recipe: BackwardRecipe, second: Second, model, batch, noise):
    """The second branch on a batch: (u, x1, x0, t, [features of `layer` (b, f, P, c) in its order of time])."""
    pipe, x1 = second.pipe, batch["x1"]
    t, x0 = pipe.times(noise), noise.randn(*x1.shape[1:])
    text = pipe.drop_text(batch["text"], noise, recipe.text_dropout, recipe.attribute_dropout)
    if pipe.reads:
        known, both = _known_of_pictures(pipe, batch["ends"], noise), None
    else:
        known, both = pipe.draw_known(batch, noise, 0.0, 1.0), noise.rand() < recipe.both
    with tapped(pipe, recipe.layer) if recipe.rar else nullcontext(list) as seen:
        u = second(model, interpolate(x0, x1, t), t, text, known, both).float()
    return u, x1, x0, t, seen()


def _known_of_pictures(pipe, ends, noise):
    """What either branch of an image-to-video class is shown: both ends, mirrored for the second, or its own end alone (SVD)."""
    if pipe.modes[0] == "first_last":
        known = pipe.draw(noise, first=ends[:, 0], last=ends[:, 1])[1]
        return known, {name: value.flip(1) for name, value in known.items()}
    return tuple(pipe.draw(noise, first=ends[:, k])[1] for k in (0, 1))


def alignment(second: Second, projector, encoder, h: torch.Tensor, pictures: torch.Tensor, other: bool = False) -> torch.Tensor:
    """L_RAR (b,), mean over frames, of features h (b, f, P, c) of the second branch with those of pictures (b, F, 3, h, w), which are
    in the order of time."""
    frames = pictures.flatten(0, 1)
    frames = encoder.fitted(frames, h.shape[2]) if hasattr(encoder, "fitted") else frames       # DINOv2: no feature is ever resized
    target = frame_targets(encoder.features(frames).unflatten(0, pictures.shape[:2]), h.shape[1])
    target = target.roll(1, 0) if other else target
    return rar_loss(projector(h), reverse(target) if second.reversed_time else target)


def frame_targets(found: torch.Tensor, f: int) -> torch.Tensor:
    """Features (b, F, P, D) of frames as those of f latent frames: the first alone, then the mean of each group (card 8.5)."""
    if found.shape[1] == f:
        return found
    return torch.cat([found[:, :1], found[:, 1:].unflatten(1, (f - 1, -1)).mean(2)], 1)


# ---------------------------------------------------------------------------------------------- features of a layer
@contextmanager
def tapped(pipe: Pipe, layer: str) -> Iterator[Callable]:
    """Inside, the output of a layer is seen, with its gradient; yields a function that gives [(b, f, P, c)] of the last call.

    layer: a U-Net's module, such as "up_blocks.0"; a transformer's block, by its number or name.
    """
    found, is_unet = [], "UNet" in type(pipe.denoiser).__name__
    over = 1 if is_unet else getattr(pipe.denoiser.config, "patch_size_t", 1) or 1

    def see(_module, _args, out):
        h = out if torch.is_tensor(out) else out[0]
        # what is seen is handed on, rearranged there and back: so the whole loss has a gradient there, not the alignment alone
        if is_unet:
            found.append(h.flatten(2).transpose(1, 2).unflatten(0, (-1, pipe.shape[0])))
            back = found[-1].flatten(0, 1).transpose(1, 2).unflatten(2, h.shape[2:])
        else:
            found.append(h.unflatten(1, (pipe.shape[0] // over, -1)))
            back = found[-1].flatten(1, 2)
        return back if torch.is_tensor(out) else (back, *out[1:])

    handle = _layer(pipe, layer).register_forward_hook(see)
    try:
        yield lambda: found[-1:]
    finally:
        handle.remove()


def _layer(pipe, layer):
    """A module by its name; of a transformer also a block by its number, through all of its lists of blocks."""
    if not layer.isdigit():
        return pipe.denoiser.get_submodule(layer)
    transformer, layout = find_transformer(pipe.denoiser)
    return [block for name in layout.blocks for block in getattr(transformer, name)][int(layer)]


def layer_width(pipe: Pipe, layer: str) -> int:
    """Channels of `tapped`'s features."""
    if "UNet" not in type(pipe.denoiser).__name__:
        return next(m for m in pipe.denoiser.modules() if hasattr(m, "to_q")).to_q.in_features
    block = pipe.denoiser.get_submodule(layer)
    last = block.resnets[-1]
    return getattr(last, "spatial_res_block", last).out_channels


def gradients_at_layer(recipe: BackwardRecipe, second: Second, projector, encoder, batch, noise) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of L_BMP and of L_RAR, unweighted, with respect to the layer's features: for `alignment.weight_of_share`."""
    u, x1, x0, _, seen = second_velocity(recipe, second, second.pipe, batch, noise)
    v = x1 - x0
    main = bmp_loss(u, v if second.reversed_time else reverse(v)).mean()
    other = alignment(second, projector, encoder, seen[0], batch["pictures"], recipe.other).mean()
    return tuple(torch.autograd.grad(loss, seen[0], retain_graph=True)[0].flatten() for loss in (main, other))
