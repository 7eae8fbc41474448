"""Look inside a video DiT while it samples or trains: features after chosen blocks, reduced 3-D self-attention maps.

    with features(model, ["transformer_blocks.3"]) as seen:           # or blocks by index: [3]
        u = model(...)
    seen["transformer_blocks.3"][0]                                    # (b, f', h', w', d) of the first call

    with attention(model, {"offsets": OffsetMass(), "entropy": Entropy()}, blocks=[0, 4], rows="first_half") as seen:
        sample(...)
    torch.stack([call["offsets"] for call in seen["transformer_blocks.0"]]).sum(0).mean(1)     # over steps, over heads

Read by these classes of diffusers, also inside a wrapper such as `models.backbone.Backbone`:

| class | self-attention over | blocks |
|---|---|---|
| CogVideoXTransformer3DModel | text, then video | transformer_blocks |
| HunyuanVideoTransformer3DModel | video, then text | transformer_blocks (two streams), single_transformer_blocks |
| WanTransformer3DModel | video | blocks |
| LTXVideoTransformer3DModel | video | transformer_blocks |

Cross-attention is not tapped. (f', h', w') is the token grid: latent frames, height and width over the patch size.

Taps are invisible: they are forward hooks that live inside the `with`, and outputs and gradients stay the same bits.
q and k are taken at the call of `scaled_dot_product_attention`, so after RoPE and QK-norm and with its scale and mask.
That is eager PyTorch only: kernels that go round that function (flash-attn, sage, xformers, flex) and compiled models
are refused with an error. A block that gradient checkpointing runs again in the backward pass is recorded once.
Source of the maps: DeT (arXiv 2503.17350) as released: all keys in the softmax, text columns dropped afterwards; it
takes the conditional half, the mean over heads and the sum over steps, which here are `rows=` and the caller's to do.
"""
from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from motionlab.core.errors import MotionLabError, nearest, one_of

Grid = tuple[int, int, int]
HALVES = ("first_half", "second_half")
# A block of softmax rows: small enough for a CPU's cache, large enough to fill an accelerator.
CPU_BYTES, ACCELERATOR_BYTES = 4 * 2 ** 20, 256 * 2 ** 20


@dataclass(frozen=True)
class Call:
    """One call of the transformer.

    Attributes:
        index: how many calls of the transformer came before it inside the tap, those that `when` left out included.
        timestep: as the transformer was given it, on the CPU; a Backbone gives 1000 (1 - t), (b,).
        grid: (f', h', w') of the video tokens.
        video, text: where these tokens stand in the self-attention's sequence; `text` is empty for Wan and LTX.
        batch: rows of the whole batch. rows: those of them that are recorded.
    """

    index: int
    timestep: torch.Tensor
    grid: Grid
    video: slice
    text: slice
    batch: int
    rows: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """Length of the self-attention's sequence, text included."""
        return max(self.video.stop, self.text.stop)


class Recording(dict):
    """{block name: [one entry per recorded call]}; the entries line up with `calls`.

    A block that a call skipped has None there. A call that raised leaves nothing.
    """

    def __init__(self, names: Sequence[str]):
        super().__init__({name: [] for name in names})
        self.calls: list[Call] = []

    def __missing__(self, name):
        raise MotionLabError(f"Block {name!r} was not tapped.{nearest(name, self)}",
                             fix=f"Tapped were: {', '.join(self)}.")


# --- the two taps

@contextmanager
def features(model: nn.Module, blocks=None, *, at: str = "block", rows=None, when: Callable[[Call], bool] | None = None,
             keep: Callable[[torch.Tensor], object] | None = None, detach: bool = True) -> Iterator[Recording]:
    """Record hidden states of the video tokens, (b, f', h', w', d) per block and call, in the model's own dtype.

    Args:
        model: a supported transformer, or a module that holds exactly one.
        blocks: index, name or a list of them; indices count in the order of execution, from the end when negative.
            None: all.
        at: "block", the residual stream after the block; "attention", what its self-attention returns (DeT's feature).
        rows: rows of the batch: a slice, a list of indices, "first_half" or "second_half". With guidance in one batch
            the conditional half is the first in this kit (`guided`), the second in diffusers' pipelines; their Wan
            and Hunyuan pipelines call twice instead: choose with `when`. None: all.
        when: which calls to record, for example `lambda call: call.index in (0, 10)`. None: all.
        keep: reduces the (b, f', h', w', d) tensor before it is stored, for example `lambda x: x.mean((2, 3)).cpu()`.
        detach: False keeps the entries in the autograd graph, for a loss on features; they are then not copied.

    Memory: calls x blocks x what `keep` leaves of b f' h' w' d numbers; nothing else is held.

    Raises:
        MotionLabError: unsupported or compiled model, unknown block, rows outside the batch, LTX called without its
            grid; at the end, when a block recorded nothing.
    """
    one_of(at, ("block", "attention"), "place of a feature tap")
    tap = _FeatureTap(model, blocks, rows, when)
    tap.at, tap.keep, tap.detach = at, keep, detach
    with _open(tap) as seen:
        yield seen


@contextmanager
def attention(model: nn.Module, reduce: Mapping[str, Reduction] | None = None, blocks=None, *, rows=None,
              when: Callable[[Call], bool] | None = None, renormalise: bool = False,
              chunk: int | None = None) -> Iterator[Recording]:
    """Record reduced self-attention maps: per block and call a dict of float32 CPU tensors, heads kept apart.

    Args:
        model, blocks, rows, when: as for `features`.
        reduce: {your name: reduction}; {"offsets": OffsetMass()} when None.
        renormalise: divide each row by its mass on the video tokens.
        chunk: queries at a time. None: as many as make a block of rows of 4 MiB (256 MiB on an accelerator).

    Each entry also holds "text" (b, heads): the mean share of a row's mass on text tokens, before renormalising; over
    all video queries, or over the asked ones when no reduction wants more.

    Memory: float32 copies of q and k, and three blocks of rows (b heads chunk keys floats); never the N x N map. A
    reduction's state is as large as its result, DisplacementMass's 8 heads N floats.

    Raises:
        MotionLabError: as for `features`; no or more than one attention call of the block's sequence length seen.
    """
    if chunk is not None and chunk < 1:
        raise MotionLabError(f"chunk is {chunk}.", fix="Give the number of queries at a time, or None.")
    tap = _AttentionTap(model, blocks, rows, when)
    tap.reduce, tap.renormalise, tap.chunk = _reductions(reduce), renormalise, chunk
    with _open(tap) as seen:
        yield seen


# --- reductions

@dataclass(frozen=True)
class Rows:
    """Some rows of the softmax: video queries of one call.

    Attributes:
        p: (b, heads, q, f', h', w') mass on the video tokens.
        full: (b, heads, q, keys) the same rows with the text columns; without them when renormalised.
        queries: (q,) their indices in raster order.
    """

    p: torch.Tensor
    full: torch.Tensor
    queries: torch.Tensor

    @property
    def grid(self) -> Grid:
        return tuple(self.p.shape[-3:])


class Reduction:
    """What is kept of the map; here a mean over all video queries. Your own one defines `add`, and `end` if need be."""

    def queries(self, grid: Grid) -> list[int] | None:
        """Tokens whose rows are needed; None: all."""
        return None

    def add(self, total: torch.Tensor | None, rows: Rows) -> torch.Tensor:
        """`total` (None at first) with these rows added."""
        raise NotImplementedError

    def end(self, total: torch.Tensor, grid: Grid) -> torch.Tensor:
        """The result of a call."""
        return total / math.prod(grid)


class FrameMass(Reduction):
    """(b, heads, f', f'): mean over the queries of frame i of their mass on frame j. Rows sum to 1 - text."""

    def add(self, total, rows):
        mass = rows.p.sum((-1, -2))
        f, h, w = rows.grid
        total = mass.new_zeros(*mass.shape[:2], f, f) if total is None else total
        return total.index_add_(2, rows.queries // (h * w), mass)

    def end(self, total, grid):
        return total / (grid[1] * grid[2])


@dataclass(frozen=True)
class OffsetMass(FrameMass):
    """(b, heads, 2f' - 1): mass at frame offset delta = key frame - query frame, index delta + f' - 1.

    Sums to 1 - text. Large offsets exist for few queries only; `existing` averages each offset over the queries that
    have it (DeT card, M_l(delta)), and then the sum is no longer 1.
    """

    existing: bool = False

    def end(self, total, grid):
        return by_offset(super().end(total, grid), self.existing)


class DisplacementMass(Reduction):
    """(b, heads, 2f' - 1, 2h' - 1, 2w' - 1): mass by displacement key - query, the centre being the query itself."""

    def add(self, total, rows):
        f, h, w = rows.grid
        if total is None:
            total = rows.p.new_zeros(*rows.p.shape[:2], 2 * f - 1, 2 * h - 1, 2 * w - 1)
        for i, query in enumerate(rows.queries.tolist()):
            t, y, x = f - 1 - query // (h * w), h - 1 - query // w % h, w - 1 - query % w
            total[:, :, t:t + f, y:y + h, x:x + w] += rows.p[:, :, i]
        return total


class RadiusMass(DisplacementMass):
    """(b, heads, 2, max(h', w')): mass by spatial radius, within the query's frame and in all other frames together.

    The radius is max(|dx|, |dy|), so that the sum over radii 0..r is the mass in a (2r+1)^2 window. By frame offset as
    well: `by_radius` of a DisplacementMass.
    """

    def end(self, total, grid):
        mass = by_radius(super().end(total, grid))
        same = mass[..., grid[0] - 1, :]
        return torch.stack([same, mass.sum(-2) - same], -2)


class Entropy(Reduction):
    """(b, heads): mean entropy of the rows in nats, over all keys; over the video tokens when renormalised."""

    def add(self, total, rows):
        entropy = torch.special.entr(rows.full).sum((-1, -2))
        return entropy if total is None else total + entropy


@dataclass(frozen=True)
class QueryMap(Reduction):
    """(b, heads, f', h', w'): where the token at (frame, y, x) looks. Sums to 1 - text of this token."""

    frame: int
    y: int
    x: int

    def queries(self, grid):
        at = (self.frame, self.y, self.x)
        if not all(0 <= i < size for i, size in zip(at, grid)):
            raise MotionLabError(f"There is no query token {at} in a grid of {grid} (frames, height, width).",
                                 fix="Count from 0, in tokens and not in pixels.")
        return [(self.frame * grid[1] + self.y) * grid[2] + self.x]

    def add(self, total, rows):
        found = (rows.queries == self.queries(rows.grid)[0]).nonzero()
        return rows.p[:, :, int(found)].clone() if len(found) else total

    def end(self, total, grid):
        return total


def by_offset(frames: torch.Tensor, existing: bool = False) -> torch.Tensor:
    """A FrameMass (..., f', f') by frame offset, (..., 2f' - 1); see `OffsetMass`."""
    f = frames.shape[-1]
    diagonals = [frames.diagonal(offset, -2, -1) for offset in range(1 - f, f)]
    return torch.stack([d.mean(-1) if existing else d.sum(-1) / f for d in diagonals], -1)


def by_radius(displacement: torch.Tensor) -> torch.Tensor:
    """A DisplacementMass (..., 2f' - 1, 2h' - 1, 2w' - 1) by offset and radius max(|dx|, |dy|): (..., 2f' - 1, R)."""
    h, w = displacement.shape[-2:]
    dy, dx = (torch.arange(n, device=displacement.device) - n // 2 for n in (h, w))
    radius = torch.maximum(dy.abs()[:, None], dx.abs()[None]).flatten()
    out = displacement.new_zeros(*displacement.shape[:-2], max(h, w) // 2 + 1)
    return out.index_add_(-1, radius, displacement.flatten(-2))


@torch.no_grad()
def reduce_attention(query: torch.Tensor, key: torch.Tensor, grid: Grid, reduce: Mapping[str, Reduction], *,
                     video: slice | None = None, attn_mask: torch.Tensor | None = None, is_causal: bool = False,
                     scale: float | None = None, enable_gqa: bool = False, renormalise: bool = False,
                     chunk: int | None = None) -> dict[str, torch.Tensor]:
    """What `attention` does with one call of the kernel: softmax rows of video queries, reduced block by block.

    Args:
        query, key: (b, heads, keys, d), as the kernel gets them.
        video: where the video tokens stand; None: first. The rest is text.
        attn_mask, is_causal, scale, enable_gqa: as of `scaled_dot_product_attention`. Dropout is left out.

    Returns: {"text": (b, heads), name: what the reduction gives}, float32 (float64 of float64) on the CPU.
    """
    n, keys = math.prod(grid), key.shape[2]
    video = video or slice(0, n)
    wanted = _wanted(reduce, grid).to(query.device)
    chunk = chunk or _chunk(query, keys)
    totals, text = dict.fromkeys(reduce), 0.0
    with torch.autocast(query.device.type, enabled=False):
        query, key, attn_mask = _scaled(query, key, attn_mask, scale, enable_gqa)
        for part in wanted.split(chunk):
            full = _softmax_rows(query, key, part + video.start, attn_mask, is_causal)
            p = full[..., video]
            text += full[..., :video.start].sum((-1, -2)) + full[..., video.stop:].sum((-1, -2))
            if renormalise:
                full = p = p / p.sum(-1, keepdim=True).clamp_min(torch.finfo(p.dtype).tiny)
            rows = Rows(p.unflatten(-1, grid), full, part)
            totals = {name: reduction.add(totals[name], rows) for name, reduction in reduce.items()}
            del full, p, rows                   # else two blocks of rows live while the next one is made
    return {"text": (text / len(wanted)).cpu(), **{name: r.end(totals[name], grid).cpu() for name, r in reduce.items()}}


def _softmax_rows(query, key, at, mask, is_causal):
    """Rows `at` of the softmax, (b, heads, q, keys)."""
    logits = query[:, :, at] @ key.transpose(-1, -2)
    if mask is not None:
        mask = mask if mask.shape[-2] == 1 else mask[..., at, :]
        logits = logits.masked_fill_(~mask, -math.inf) if mask.dtype == torch.bool else logits.add_(mask)
    if is_causal:
        logits.masked_fill_(torch.arange(key.shape[2], device=at.device) > at[:, None], -math.inf)
    return logits.softmax(-1)


def _scaled(query, key, mask, scale, enable_gqa):
    """q times the scale, k and mask in float32 at least, one key head per query head."""
    dtype = torch.promote_types(query.dtype, torch.float32)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    if enable_gqa:
        key = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
    if mask is not None:
        mask = mask.reshape(*[1] * (4 - mask.dim()), *mask.shape)
        mask = mask if mask.dtype == torch.bool else mask.to(dtype)
    return query.to(dtype) * scale, key.to(dtype).contiguous(), mask


def _wanted(reduce, grid):
    """Video queries whose rows are needed, (q,) int64."""
    asked = [reduction.queries(grid) for reduction in reduce.values()]
    if any(queries is None for queries in asked):
        return torch.arange(math.prod(grid))
    return torch.tensor(sorted(set().union(*asked)))


def _chunk(query, keys):
    row = query.shape[0] * query.shape[1] * keys * 4
    return max(1, (CPU_BYTES if query.device.type == "cpu" else ACCELERATOR_BYTES) // row)


def _reductions(reduce):
    reduce = {"offsets": OffsetMass()} if reduce is None else reduce
    if not isinstance(reduce, Mapping) or not reduce or not all(isinstance(r, Reduction) for r in reduce.values()):
        raise MotionLabError(f"`reduce` is {reduce!r}.", fix='Give a dict, for example {"offsets": OffsetMass()}.')
    if "text" in reduce:
        raise MotionLabError("A reduction is named 'text', which is the share of mass on text tokens.",
                             fix="Choose another name.")
    return dict(reduce)


# --- the architectures

@dataclass(frozen=True)
class _Layout:
    """Where things are: lists of blocks in the order of execution, a block's self-attention, its text tokens, grid."""

    blocks: tuple[str, ...]
    attention: str
    text: str                       # "first", "last" or "none"
    grid: Callable[[dict, dict], Grid]


def _cogvideox_grid(config, inputs):
    _, f, _, h, w = inputs["hidden_states"].shape
    p = config["patch_size"]
    return f // (config.get("patch_size_t") or 1), h // p, w // p


def _wan_grid(config, inputs):
    return tuple(size // p for size, p in zip(inputs["hidden_states"].shape[2:], config["patch_size"]))


def _hunyuan_grid(config, inputs):
    p, p_t = config["patch_size"], config["patch_size_t"]
    return tuple(size // step for size, step in zip(inputs["hidden_states"].shape[2:], (p_t, p, p)))


def _ltx_grid(config, inputs):
    grid = tuple(inputs.get(name) for name in ("num_frames", "height", "width"))
    if None in grid:
        raise MotionLabError("LTX was called without num_frames, height and width: its tokens come as one list, so "
                             "the tap cannot know their grid.",
                             fix="Pass all three to the transformer, in tokens; with video_coords it ignores them.")
    return grid


_LAYOUTS = {
    "CogVideoXTransformer3DModel": _Layout(("transformer_blocks",), "attn1", "first", _cogvideox_grid),
    "HunyuanVideoTransformer3DModel": _Layout(("transformer_blocks", "single_transformer_blocks"), "attn", "last",
                                              _hunyuan_grid),
    "WanTransformer3DModel": _Layout(("blocks",), "attn1", "none", _wan_grid),
    "LTXVideoTransformer3DModel": _Layout(("transformer_blocks",), "attn1", "none", _ltx_grid),
}


def _transformer(model):
    """The one supported transformer in `model`, and its layout. Known by class name: diffusers is not imported."""
    modules = model.modules() if isinstance(model, nn.Module) else ()
    found = [(module, _LAYOUTS[cls.__name__]) for module in modules
             for cls in type(module).__mro__ if cls.__name__ in _LAYOUTS]
    if len(found) != 1:
        raise MotionLabError(f"{type(model).__name__} holds {len(found)} transformers that can be tapped.",
                             fix=f"Give one {', '.join(_LAYOUTS)}, or a module that holds one; of a pipeline, its "
                                 ".transformer.")
    return found[0]


def _block_names(transformer, layout):
    return [f"{stack}.{i}" for stack in layout.blocks for i in range(len(getattr(transformer, stack)))]


def _select(transformer, layout, blocks):
    """{name: block} of indices and names."""
    names = _block_names(transformer, layout)
    blocks = range(len(names)) if blocks is None else [blocks] if isinstance(blocks, (int, str)) else blocks
    chosen = [_block_name(block, names) for block in blocks]
    if not chosen:
        raise MotionLabError("No blocks were named.", fix=f"Name some of {names[0]} to {names[-1]}, or None for all.")
    return {name: transformer.get_submodule(name) for name in chosen}


def _block_name(block, names):
    if isinstance(block, int) and -len(names) <= block < len(names):
        return names[block]
    if block in names:
        return block
    close = nearest(block, names)
    if isinstance(block, int):
        close = f" The nearest is {len(names) - 1 if block > 0 else -len(names)}, '{names[-1 if block > 0 else 0]}'."
    raise MotionLabError(f"There is no block {block!r} in this model.{close}",
                         fix=f"Blocks are 0 to {len(names) - 1}, '{names[0]}' to '{names[-1]}'.")


def _refuse_compiled(model, attentions):
    paths = [name.split(".") for name, module in model.named_modules() if any(module is a for a in attentions)]
    parts = {model.get_submodule(".".join(path[:i])) for path in paths for i in range(len(path) + 1)}
    if any(getattr(m, "_compiled_call_impl", None) is not None or type(m).__name__ == "OptimizedModule" for m in parts):
        raise MotionLabError("The model is compiled, and a compiled model does not run hooks.",
                             fix="Tap the model before `compile` (`model._orig_mod` of torch.compile's result).")


def _chosen_rows(rows, b):
    """`rows` as indices into a batch of b."""
    if rows is None:
        return tuple(range(b))
    if isinstance(rows, str):
        one_of(rows, HALVES, "part of the batch")
        if b % 2:
            raise MotionLabError(f"A batch of {b} has no halves.",
                                 fix="rows='first_half' is for guidance in one batch; otherwise leave rows out.")
        rows = slice(0, b // 2) if rows == HALVES[0] else slice(b // 2, b)
    if isinstance(rows, slice):
        rows = range(b)[rows]
    chosen = tuple(int(row) for row in rows)
    if not chosen or not all(-b <= row < b for row in chosen):
        raise MotionLabError(f"Rows {list(chosen)} were asked of a batch of {b}.", fix=f"Use 0 to {b - 1}.")
    return tuple(row % b for row in chosen)


# --- hooks

class _Tap:
    """What both taps share: which call of the transformer runs, and a recording that only whole calls enter."""

    def __init__(self, model, blocks, rows, when):
        self.transformer, self.layout = _transformer(model)
        self.blocks = _select(self.transformer, self.layout, blocks)
        _refuse_compiled(model, [getattr(block, self.layout.attention) for block in self.blocks.values()])
        self.rows, self.when = rows, when
        self.signature = inspect.signature(type(self.transformer).forward)
        self.seen = Recording(list(self.blocks))
        self.handles, self.count = [], 0
        self.call, self.found = None, {}

    def attach(self):
        self.handles += [self.transformer.register_forward_pre_hook(self._begin, with_kwargs=True),
                         self.transformer.register_forward_hook(self._commit, always_call=True)]

    def detach_all(self):
        for handle in self.handles:
            handle.remove()

    def _begin(self, module, args, kwargs):
        # Checkpointing runs blocks again outside of the transformer's forward, where self.call is None; checkpointing
        # around the transformer runs it again inside of the backward pass.
        self.call, self.found = None, {}
        if torch._C._current_graph_task_id() != -1:
            return
        call = self._describe(self.signature.bind_partial(module, *args, **kwargs).arguments)
        self.count += 1
        if self.when is None or self.when(call):
            self.call = call

    def _describe(self, inputs):
        grid = self.layout.grid(self.transformer.config, inputs)
        n = math.prod(grid)
        words = 0 if self.layout.text == "none" else inputs["encoder_hidden_states"].shape[1]
        first = words if self.layout.text == "first" else 0
        text = slice(0, first) if first else slice(n, n + words)
        b = len(inputs["hidden_states"])
        return Call(self.count, torch.as_tensor(inputs["timestep"]).detach().cpu().clone(), grid,
                    slice(first, first + n), text, b, _chosen_rows(self.rows, b))

    def _commit(self, module, args, output):
        try:
            if self.call is not None and output is not None:        # else it is not recorded, or it raised
                found = {name: self.entry(name) for name in self.seen}
                self.seen.calls.append(self.call)
                for name, entries in self.seen.items():
                    entries.append(found[name])
        finally:
            self.call, self.found = None, {}

    def entry(self, name):
        """What is recorded of a block, at the end of the call; None if it did not run."""
        return self.found.get(name)

    def take(self, x):
        """The recorded rows of x (b, ...)."""
        return x if len(self.call.rows) == self.call.batch and self.rows is None else x[list(self.call.rows)]

    def check(self):
        empty = [name for name, entries in self.seen.items() if all(entry is None for entry in entries)]
        if not empty or (self.count and not self.seen.calls):       # `when` may want none of the calls
            return
        ran = f"in {self.count} call{'s' * (self.count != 1)} of the transformer" if self.count else \
            "because the transformer was not called"
        raise MotionLabError(f"The tap of '{empty[0]}' recorded nothing {ran}.",
                             fix="Call the model, eager and not compiled, inside the `with`.")


class _FeatureTap(_Tap):
    def attach(self):
        super().attach()
        for name, block in self.blocks.items():
            module = block if self.at == "block" else getattr(block, self.layout.attention)
            self.handles.append(module.register_forward_hook(lambda _m, _a, output, name=name: self._see(name, output)))

    def _see(self, name, output):
        if self.call is None:
            return
        video = output if isinstance(output, torch.Tensor) else output[0]       # else (video, text), whatever the class
        if video.shape[1] != math.prod(self.call.grid):
            raise MotionLabError(f"Block '{name}' returned {video.shape[1]} tokens for a grid of {self.call.grid}.",
                                 fix="The tap does not know this way of calling the model; drop tokens beside the "
                                     "clip's own.")
        # Attached features wait for the end of the call: inside of a checkpointed block there may be no graph yet, and
        # what is computed here would be missing when the backward pass runs the block again.
        self.found[name] = self._reduced(video.detach()) if self.detach else video

    def entry(self, name):
        video = super().entry(name)
        if self.detach or video is None:
            return video
        if torch.is_grad_enabled() and not video.requires_grad:
            raise MotionLabError(f"The features of '{name}' were asked attached, but no gradient reaches them.",
                                 fix="Nothing up to this block is trained: unfreeze it, add LoRA, or tap a later one.")
        return self._reduced(video)

    def _reduced(self, video):
        video = self.take(video).unflatten(1, self.call.grid)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.detach):
            value = video if self.keep is None else self.keep(video)
        if self.detach and isinstance(value, torch.Tensor) and _same_storage(value, video):
            value = value.clone()                   # the model may write into its own tensors later
        return value


def _same_storage(a, b):
    return a.device == b.device and a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()


class _AttentionTap(_Tap):
    """The function mode is on only while a tapped self-attention runs, so that nothing else sees it."""

    block = None                                     # whose attention runs; None: the mode is off

    def attach(self):
        super().attach()
        self.mode = _Watch(self._see)
        for name, block in self.blocks.items():
            module = getattr(block, self.layout.attention)
            self.handles += [
                module.register_forward_pre_hook(lambda _m, _a, name=name: self._enter(name)),
                module.register_forward_hook(lambda _m, _a, output: self._leave(output is None), always_call=True)]

    def detach_all(self):
        super().detach_all()
        self._off()

    def _enter(self, name):
        self._off()                                  # an interrupt may have left it on: no hook runs after one
        if self.call is not None:
            self.mode.__enter__()
            self.block = name

    def _leave(self, raised):
        name = self.block
        self._off()
        if name is not None and not raised and name not in self.found:
            raise MotionLabError(f"The self-attention of '{name}' ran without a call of scaled_dot_product_attention "
                                 f"over its {self.call.tokens} tokens.",
                                 fix="Use the eager native kernels: model.set_attention_backend('native'), and no "
                                     "other processors.")

    def _off(self):
        if self.block is not None:
            self.block = None
            self.mode.__exit__(None, None, None)

    def _see(self, query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
        call = self.call
        if query.dim() != 4 or not query.shape[2] == key.shape[2] == call.tokens:
            return
        if self.block in self.found:
            raise MotionLabError(f"The self-attention of '{self.block}' called the kernel more than once.",
                                 fix="The tap cannot tell which of them is the map; use the class's own processor.")
        query, key, attn_mask = (_autocast(x) for x in (query, key, attn_mask))
        if attn_mask is not None and attn_mask.dim() == 4 and len(attn_mask) == call.batch:
            attn_mask = self.take(attn_mask)
        self.found[self.block] = reduce_attention(
            self.take(query), self.take(key), call.grid, self.reduce, video=call.video, attn_mask=attn_mask,
            is_causal=is_causal, scale=scale, enable_gqa=enable_gqa, renormalise=self.renormalise, chunk=self.chunk)


class _Watch(TorchFunctionMode):
    """Shows the arguments of every `scaled_dot_product_attention` to `see`, and changes nothing."""

    def __init__(self, see):
        super().__init__()
        self.see = see

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            self.see(*args, **kwargs)
        return func(*args, **kwargs)


def _autocast(x):
    """x as autocast hands it to the kernel: this is below the level that the function mode sees."""
    if x is None or not torch.is_autocast_enabled(x.device.type) or x.dtype not in (torch.float32, torch.float16,
                                                                                    torch.bfloat16):
        return x
    return x.detach().to(torch.get_autocast_dtype(x.device.type))


@contextmanager
def _open(tap):
    try:
        tap.attach()
        yield tap.seen
    finally:
        tap.detach_all()
    tap.check()                                      # not after an exception, which says enough
