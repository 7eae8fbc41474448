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

import numpy as np
import torch

from motionlab.analyses.inputs import GROUP, CaptionedClip, demand_text
from motionlab.models.pipe import Pipe
from motionlab.diffusion import interpolate, linear_quadratic_grid, velocity
from motionlab.core.errors import MotionLabError, one_of
from motionlab.video import as_video

FRAME_ORDERS = ("original", "shuffled", "reversed", "swapped", "within_latents", "whole_latents")
LATENT_ORDERS = ("latents_shuffled", "latents_reversed")
PAPER = ("original", "shuffled", "latents_shuffled")


def frame_order(kind: str, f: int, generator: torch.Generator) -> torch.Tensor:
    """Indices (f,) that put frames in another order.

    original; shuffled (uniform over all orders but the original); reversed; swapped (neighbours change places: 1 0 3 2 ...);
    within_latents (frames change places only inside the groups of four that share a latent) and whole_latents (the groups
    change places, the order inside is kept; the first frame stays): what a codec blurs apart from what a model must know.

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
    if kind in ("within_latents", "whole_latents"):
        return _by_groups(kind, order, generator)
    return _shuffled(f, generator) if kind == "shuffled" else order


def _by_groups(kind, order, generator):
    groups = list(order[1:].split(GROUP))
    if kind == "within_latents":
        groups = [g[_shuffled(len(g), generator)] if len(g) > 1 else g for g in groups]
    elif len(groups) > 1:
        groups = [groups[k] for k in _shuffled(len(groups), generator)]
    return torch.cat([order[:1], *groups])


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


ALL = (*FRAME_ORDERS, *LATENT_ORDERS)


def changed_latents(video: torch.Tensor, encode: Callable, generator: torch.Generator, kinds=ALL) -> dict[str, torch.Tensor]:
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


# ---------------------------------------------------------------------------------------------- at which noise level?
# The paper counts sampling steps 0 to 99 and does not say how they map to t (card, A12). Both readings are measured.
READINGS = ("linear", "linear_quadratic")


def time_of_step(step: torch.Tensor, reading: str, steps: int = 100, n: int = 1000) -> torch.Tensor:
    """Our t at a (fractional) step of the paper's sampler: step / steps, or Movie Gen's linear-quadratic grid of n.

    Raises:
        MotionLabError: an unknown reading.
    """
    one_of(reading, READINGS, "reading of the paper's steps")
    if reading == "linear":
        return step / steps
    grid = linear_quadratic_grid(steps, n).to(step)
    low = step.floor().long().clamp(max=steps - 1)
    return grid[low] + (step - low) * (grid[low + 1] - grid[low])


def shuffle_rows(model_of: Callable, batches: Iterator[dict], draws: int = 1, readings=READINGS, seed: int = 0,
                 steps: int = 100) -> Iterator[dict]:
    """Rows {item, arm, seed, reading, draw, step, t, loss, loss_original}, one per clip, version, reading and drawn step.

    Args:
        model_of: captions -> model(x_t, t). batches: dicts with `items` (names), `captions`, `latents` {kind: ...} and
            optionally `about`, a dict per item whose entries become columns.
        draws: steps drawn per clip and reading, one in each of as many equal parts of the path.
    """
    generator = torch.Generator().manual_seed(seed)
    for batch in batches:
        latents, model = batch["latents"], model_of(batch["captions"])
        x1 = next(iter(latents.values()))
        for reading in readings:
            for k in range(draws):
                step = steps * (k + torch.rand(len(x1), generator=generator)) / draws
                t = time_of_step(step, reading, steps)
                x0 = torch.randn(x1.shape, generator=generator).to(x1.device)
                losses = paired_losses(model, latents, t.to(x1.device), x0)
                for i, item in enumerate(batch["items"]):
                    where = {"reading": reading, "draw": k, "step": float(step[i]), "t": float(t[i])}
                    about = {"loss_original": float(losses["original"][i])} | batch.get("about", [{}] * len(x1))[i]
                    for kind, loss in losses.items():
                        yield {"item": item, "arm": kind, "seed": seed} | where | {"loss": float(loss[i])} | about


def gaps(rows: Iterator[dict], steps: int = 100, bins: int = 10):
    """Rows of `shuffle_rows` as a DataFrame with step_mid (middle of the step's bin), upto_60 (1 up to step 60 of 100) and
    gap: (loss - loss_original) / mean loss_original of the same reading and bin, so that its mean in a bin is G_t.
    """
    import pandas as pd

    table = pd.DataFrame(list(rows))
    table["step_mid"] = ((table["step"] * bins / steps).astype(int).clip(upper=bins - 1) + 0.5) * steps / bins
    table["upto_60"] = (table["step"] <= 0.6 * steps).astype(int)
    usual = table[table["arm"] == "original"].groupby(["reading", "step_mid"])["loss"].mean().rename("usual")
    table = table.join(usual, on=["reading", "step_mid"])
    return table.assign(gap=(table["loss"] - table["loss_original"]) / table["usual"]).drop(columns="usual")


VERSIONS, HALVES = ("original", "shuffled", "latents"), ("loss", "blind", "motion")


def trained_gaps(rows, steps: int = 100, bins: int = 10):
    """Sweep rows of trained arms (`experiments.shuffled`) as long DataFrame {item, arm, seed, reading, step_mid, upto_60,
    version, half, who, gap}; who is "<arm>, <half>"; gap as in `gaps`, within each arm, half, reading and bin.
    """
    import pandas as pd

    rows = rows[rows["arm"].str.endswith("_shuffle")].dropna(axis=1, how="all")
    rows = rows.assign(step_mid=((rows["step"] * bins / steps).astype(int).clip(upper=bins - 1) + 0.5) * steps / bins)
    keys, out = ["item", "arm", "seed", "reading", "step_mid", "upto_60"], []
    for half in (h for h in HALVES if f"{h}_original" in rows):
        usual = rows.groupby(["arm", "reading", "step_mid"])[f"{half}_original"].transform("mean")
        for version in VERSIONS:
            gap = (rows[f"{half}_{version}"] - rows[f"{half}_original"]) / usual
            out.append(rows[keys].assign(version=version, half=half, who=rows["arm"] + ", " + half, gap=gap).dropna(subset=["gap"]))
    return pd.concat(out, ignore_index=True)


THIRDS = ("early", "middle", "late")


def by_third(table, who: str = "sees"):
    """One row per clip and arm "<who>/<version>" from three draws per clip on linear steps: gap_early, gap_middle, gap_late."""
    linear = table[table["reading"] == "linear"].assign(kind=lambda d: d["arm"], third=lambda d: d["draw"].map(lambda k: THIRDS[k]))
    keys = [who, "kind", "item", "seed"]
    wide = linear.pivot_table(index=keys, columns="third", values="gap", sort=False).add_prefix("gap_").reset_index()
    return wide.assign(arm=wide[who] + "/" + wide["kind"])


def by_clutter(tables: dict):
    """Rows {item, arm "clutter_<amount>", seed, gap_<version>, half_of_plain}: each clip's mean gap over its draws.

    Args:
        tables: {amount: rows of `gaps`}.

    half_of_plain: half of the gap_shuffled of the same clip without clutter (amount 0), to compare with.
    """
    import pandas as pd

    parts = []
    for amount, table in tables.items():
        means = table[table["arm"] != "original"].groupby(["item", "seed", "arm"])["gap"].mean().unstack("arm").add_prefix("gap_")
        parts.append(means.reset_index().assign(arm=f"clutter_{amount:g}"))
    whole = pd.concat(parts, ignore_index=True)
    plain = whole[whole["arm"] == "clutter_0"].set_index("item")["gap_shuffled"]
    return whole.assign(half_of_plain=whole["item"].map(plain) / 2)


# ---------------------------------------------------------------------------------------------- clips
def frozen(clip) -> CaptionedClip:
    """The clip's first frame all the time: no order of its frames can be told from another."""
    return CaptionedClip(np.repeat(clip.frames[:1], len(clip.frames), axis=0), clip.caption)


def batches(clips: dict, model: Pipe, kinds=ALL, seed: int = 0, batch: int = 16) -> Iterator[dict]:
    """Batches for `shuffle_rows` of clips {item: clip}: items, captions, latents {kind: ...} and, per item, `about`:
    speed (median displacement of the subject per latent frame, in tokens; where the truth is known) and psnr_<kind> of the
    codec's reconstruction of the original and of the shuffled frames, which is what the codec itself does to them.
    """
    demand_text(model, "the order")
    generator, items = torch.Generator().manual_seed(seed), list(clips)
    for part in (items[k:k + batch] for k in range(0, len(items), batch)):
        chosen = [clips[k] for k in part]
        video = torch.stack([as_video(clip.frames) for clip in chosen])
        latents = changed_latents(video, model.encode_video, generator, kinds)
        quality = {kind: psnr_any_order(model.decode(z), video) for kind, z in latents.items() if kind in ("original", "shuffled")}
        about = [{"speed": speed(clip, model.cell)} | {f"psnr_{kind}": values[i] for kind, values in quality.items()}
                 for i, clip in enumerate(chosen)]
        yield {"items": part, "captions": [clip.caption for clip in chosen], "latents": latents, "about": about}


def latent_by_latent(model_of: Callable) -> Callable:
    """A model of clips that sees every latent frame alone (as a clip of length 1): it cannot know any order between them.

    What it still finds in reordered *frames* is what the codec made of them.
    """
    def of(captions):
        def u(x, t):
            b, f = x.shape[:2]
            inner = model_of([c for c in captions for _ in range(f)])
            return inner(x.reshape(b * f, 1, *x.shape[2:]), t.repeat_interleave(f)).reshape(x.shape)
        return u
    return of


def single_frames(clips: dict, model: Pipe, seed: int = 0, batch: int = 16) -> Iterator[dict]:
    """Batches as `batches` gives them, of every fourth frame encoded singly: no codec has mixed frames here. For
    `latent_by_latent` only (arms original and shuffled): the floor, since nothing in it knows time.
    """
    generator, items = torch.Generator().manual_seed(seed), list(clips)
    for part in (items[k:k + batch] for k in range(0, len(items), batch)):
        z = torch.cat([model.encode_video(as_video(clips[k].frames[::GROUP, None])).transpose(0, 1) for k in part])
        shuffled = torch.stack([one[_shuffled(len(one), generator)] for one in z])
        yield {"items": part, "captions": [clips[k].caption for k in part], "latents": {"original": z, "shuffled": shuffled}}


def psnr_any_order(decoded, video: torch.Tensor) -> list[float]:
    """PSNR in dB of decoded clips, uint8 (b, f, h, w, 3), each frame against whichever frame of its clip it fits best."""
    out = []
    for made, true in zip(as_video(decoded), video):
        errors = torch.stack([(frame[None] - true).square().mean((1, 2, 3)).min() for frame in made])
        out.append(float(10 * torch.log10(4 / errors.mean())))
    return out


def speed(clip, cell: int = 4) -> float:
    """Median speed of the subject's pixels in tokens per latent frame; NaN for a clip without truth."""
    if not hasattr(clip, "flow"):
        return float("nan")
    mask = clip.object_mask(None)[:-1]
    found = np.linalg.norm(clip.flow, axis=1)[mask] * GROUP / cell
    return float(np.median(found)) if found.size else 0.0
