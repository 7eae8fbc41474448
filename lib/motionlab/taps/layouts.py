"""Where each class of transformer has its blocks, its self-attention and its video tokens."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from motionlab.core.errors import MotionLabError, nearest, one_of
from motionlab.taps.calls import Grid, HALVES


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


def find_transformer(model):
    """The one supported transformer in `model`, and its layout. Known by class name: diffusers is not imported."""
    modules = list(model.modules()) if isinstance(model, nn.Module) else ()
    found = [(module, _LAYOUTS[cls.__name__]) for module in modules
             for cls in type(module).__mro__ if cls.__name__ in _LAYOUTS]
    if not found and any("UNet" in type(module).__name__ for module in modules):
        raise MotionLabError("A U-Net has no one grid of tokens: its attention is over space or over time, at several sizes, so "
                             "taps do not read it.", fix=f"Give one of {', '.join(_LAYOUTS)}.")
    if len(found) != 1:
        raise MotionLabError(f"{type(model).__name__} holds {len(found)} transformers that can be tapped.",
                             fix=f"Give one {', '.join(_LAYOUTS)}, or a module that holds one; of a pipeline, its "
                                 ".transformer.")
    return found[0]


def _block_names(transformer, layout):
    return [f"{stack}.{i}" for stack in layout.blocks for i in range(len(getattr(transformer, stack)))]


def selected_blocks(transformer, layout, blocks):
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


def refuse_compiled(model, attentions):
    paths = [name.split(".") for name, module in model.named_modules() if any(module is a for a in attentions)]
    parts = {model.get_submodule(".".join(path[:i])) for path in paths for i in range(len(path) + 1)}
    if any(getattr(m, "_compiled_call_impl", None) is not None or type(m).__name__ == "OptimizedModule" for m in parts):
        raise MotionLabError("The model is compiled, and a compiled model does not run hooks.",
                             fix="Tap the model before `compile` (`model._orig_mod` of torch.compile's result).")


def chosen_rows(rows, b):
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
