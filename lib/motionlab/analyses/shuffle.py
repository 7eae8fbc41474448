"""Permuted-frame loss curves (VideoJAM, arXiv 2502.02492, section 3, Fig. 3): does the training loss notice that time is broken?

A clip and a copy of it with its frames in another order are noised with the same x0 at the same t, under the same caption;
the loss of each is taken against its own velocity. The gap of a bin of t is

    G_t = mean(L_changed - L_original) / mean(L_original)

and 0 means that the model does not care about the order. Two ways to break time must be told apart: reordering *frames*
before a temporal autoencoder also makes latents that no clip has (an artefact of the codec); reordering *latents* after it
does not, but the first latent of a causal codec holds one frame only and gives itself away, so it stays in place.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from motionlab.diffusion import interpolate, velocity
from motionlab.errors import MotionLabError, one_of

FRAME_ORDERS = ("original", "shuffled", "reversed", "swapped")
LATENT_ORDERS = ("latents_shuffled", "latents_reversed")


def frame_order(kind: str, f: int, generator: torch.Generator) -> torch.Tensor:
    """Indices (f,) that put frames in another order: original, shuffled (uniform over all orders but the original),
    reversed, swapped (neighbours change places: 1 0 3 2 ...).

    Raises:
        MotionLabError: unknown kind; a clip of fewer than two frames.
    """
    one_of(kind, FRAME_ORDERS, "frame order")
    _several(f)
    order = torch.arange(f)
    if kind == "reversed":
        return order.flip(0)
    if kind == "swapped":
        return torch.tensor([k ^ 1 if (k ^ 1) < f else k for k in range(f)])
    return _shuffled(f, generator) if kind == "shuffled" else order


def latent_order(kind: str, f: int, generator: torch.Generator) -> torch.Tensor:
    """Indices (f,) over latent frames; the first one stays in place. Needs three latents or more.

    Raises:
        MotionLabError: unknown kind, a clip too short to have another order.
    """
    one_of(kind, LATENT_ORDERS, "latent order")
    if f < 3:
        raise MotionLabError(f"A clip of {f} latent frames has no other order with the first one kept.", fix="Use 3 latent frames or more.")
    rest = torch.arange(f - 1).flip(0) if kind == "latents_reversed" else _shuffled(f - 1, generator)
    return torch.cat([torch.zeros(1, dtype=torch.int64), 1 + rest])


def _shuffled(f, generator):
    while True:
        order = torch.randperm(f, generator=generator)
        if not bool((order == torch.arange(f)).all()):
            return order


def _several(f):
    if f < 2:
        raise MotionLabError(f"A clip of {f} frame has no order to change.", fix="Use a clip of 5 frames or more.")


def changed_latents(video: torch.Tensor, encode: Callable, generator: torch.Generator, kinds=(*FRAME_ORDERS, *LATENT_ORDERS)) -> dict[str, torch.Tensor]:
    """Latents {kind: (b, f', c, h, w)} of clips (b, f, 3, h, w) and of copies in other orders; every clip has its own shuffle.

    Args:
        encode: video -> latents, for example `Codec.encode`.
    """
    out, f = {}, video.shape[1]
    original = encode(video)
    for kind in kinds:
        if kind == "original":
            out[kind] = original
        elif kind in LATENT_ORDERS:
            out[kind] = torch.stack([z[latent_order(kind, len(z), generator)] for z in original])
        else:
            out[kind] = encode(torch.stack([clip[frame_order(kind, f, generator)] for clip in video]))
    return out


@torch.no_grad()
def paired_losses(model: Callable, latents: dict[str, torch.Tensor], t: torch.Tensor, x0: torch.Tensor) -> dict[str, torch.Tensor]:
    """Flow-matching loss {kind: (b,)} of each version at the same noise and time, each against its own velocity.

    Args:
        model: (x_t, t) -> u, text already bound. latents: as `changed_latents` gives. t: (b,) in [0, 1]. x0: as one latent.
    """
    out = {}
    for kind, x1 in latents.items():
        u = model(interpolate(x0, x1, t), t)
        out[kind] = (u.float() - velocity(x0, x1)).square().flatten(1).mean(1)
    return out


def shuffle_rows(model_of: Callable, batches: Iterator[dict], times: int = 2, seed: int = 0, bins: int = 10) -> Iterator[dict]:
    """Rows {item, arm, seed, t, t_bin, loss, loss_original}, one per clip, version and drawn time.

    Args:
        model_of: tokens (b, n) -> model(x_t, t). batches: dicts with `items` (names), `tokens`, `latents` {kind: ...} and
            optionally `about`, a dict per item whose entries become columns.
        times: noise levels per clip, spread evenly over [0, 1] by stratified draws.
    """
    generator = torch.Generator().manual_seed(seed)
    for batch in batches:
        latents, model = batch["latents"], model_of(batch["tokens"])
        x1 = next(iter(latents.values()))
        for k in range(times):
            t = (k + torch.rand(len(x1), generator=generator)) / times
            x0 = torch.randn(x1.shape, generator=generator)
            losses = paired_losses(model, latents, t, x0)
            for i, item in enumerate(batch["items"]):
                for kind, loss in losses.items():
                    yield {"item": f"{item}/{k}", "arm": kind, "seed": seed, "t": float(t[i]), "t_bin": int(t[i] * bins),
                           "loss": float(loss[i]), "loss_original": float(losses["original"][i])} | batch.get("about", [{}] * len(x1))[i]


# ---------------------------------------------------------------------------------------------- clips of the world
def world_batches(seeds, codec, grammar, seed: int = 0, kinds=(*FRAME_ORDERS, *LATENT_ORDERS), frames: int = 17, clutter: float = 0.0,
                  batch: int = 16) -> Iterator[dict]:
    """Batches for `shuffle_rows` from scenes of the world: items, tokens, latents {kind: ...} and, per item, `about`:
    speed (median displacement of the subject per latent frame, in tokens) and psnr_<kind> of the codec's reconstruction of
    each order of frames, which is how far the codec itself is from what it was trained on.
    """
    from motionlab.world import random_scene, render

    generator, seeds = torch.Generator().manual_seed(seed), list(seeds)
    for first in range(0, len(seeds), batch):
        clips = [render(random_scene(s, clutter=clutter), 48, frames) for s in seeds[first:first + batch]]
        video = torch.stack([torch.from_numpy(clip.video()) for clip in clips])
        with torch.no_grad():
            latents = changed_latents(video, codec.encode, generator, kinds)
            quality = {kind: _psnr(codec, z, video) for kind, z in latents.items() if kind in ("original", "shuffled")}
        about = [{"speed": _speed(clip)} | {f"psnr_{kind}": values[i] for kind, values in quality.items()} for i, clip in enumerate(clips)]
        yield {"items": [str(s) for s in seeds[first:first + batch]], "tokens": grammar.encode([c.caption for c in clips]), "latents": latents, "about": about}


def _psnr(codec, latents, video):
    """Reconstruction against the nearest order of the original frames: each frame against the best-matching original one."""
    decoded = codec.decode(latents)
    out = []
    for made, true in zip(decoded, video):
        errors = torch.stack([(frame[None] - true).square().mean((1, 2, 3)).min() for frame in made])
        out.append(float(10 * torch.log10(4 / errors.mean())))
    return out


def _speed(clip):
    """Median speed of the subject's pixels in tokens (4 pixels) per latent frame (4 frames): pixels per frame."""
    mask, flow = clip.object_mask(None)[:-1], torch.from_numpy(clip.flow)
    speed = torch.linalg.vector_norm(flow, dim=1).numpy()[mask]
    return float(torch.tensor(speed).median()) if speed.size else 0.0
