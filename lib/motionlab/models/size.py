"""`motionlab size`: what training a backbone costs, counted on torch's meta device: no weights, no download, no memory.

Counted: parameters; memory of weights, gradients and optimiser; what autograd keeps of a step; floating-point
operations of a step (multiply and add are two). On a CUDA device `time_on_cuda` runs the same architecture with random
weights.

Attention is counted as the fused kernel does it (Dao 2023, FlashAttention-2): the forward pass costs 4 N^2 d and keeps
no N x N map; the backward pass computes the scores once more, 10 N^2 d.
"""
from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from motionlab.core.errors import MotionLabError, one_of
from motionlab.core.files import parse_json
from motionlab.models.counting import count, time_steps
from motionlab.models.heads import heads_run
from motionlab.models.small.backbone import Backbone, BackboneConfig

BLOCKS = {"CogVideoXTransformer3DModel": "transformer_blocks", "WanTransformer3DModel": "blocks"}
GROUP = 4                     # frames per latent frame after the first, in all of them
WAN_TEXT_TOKENS = 512         # Wan2.1 pads its UMT5 text to 512 tokens; no field of its transformer says so


@dataclass(frozen=True)
class Architecture:
    """A backbone as diffusers builds it. stride: pixels per latent; height, width: the published pixels."""

    name: str
    kind: str
    arguments: dict[str, Any]
    stride: int
    height: int
    width: int


FULL_SIZE = {
    # diffusers' scripts/convert_wan_to_diffusers.py, get_transformer_config("Wan-T2V-1.3B"); trained at 832 x 480.
    "wan-1.3b": Architecture("wan-1.3b", "WanTransformer3DModel", {
        "added_kv_proj_dim": None, "attention_head_dim": 128, "cross_attn_norm": True, "eps": 1e-6, "ffn_dim": 8960,
        "freq_dim": 256, "in_channels": 16, "num_attention_heads": 12, "num_layers": 30, "out_channels": 16,
        "patch_size": (1, 2, 2), "qk_norm": "rms_norm_across_heads", "text_dim": 4096}, 8, 480, 832),
    # diffusers' scripts/convert_cogvideox_to_diffusers.py: 30 layers, 30 heads and no rotary positions for the 2B, and
    # for the rest the class's defaults, written out; trained at 720 x 480.
    "cogvideox-2b": Architecture("cogvideox-2b", "CogVideoXTransformer3DModel", {
        "num_attention_heads": 30, "attention_head_dim": 64, "num_layers": 30, "in_channels": 16, "out_channels": 16,
        "time_embed_dim": 512, "text_embed_dim": 4096, "max_text_seq_length": 226, "patch_size": 2,
        "sample_width": 90, "sample_height": 60, "sample_frames": 49, "temporal_compression_ratio": 4,
        "spatial_interpolation_scale": 1.875, "temporal_interpolation_scale": 1.0,
        "use_rotary_positional_embeddings": False}, 8, 480, 720),
}
NAMES = ("small", *FULL_SIZE)


@dataclass(frozen=True)
class Size:
    """Counts for one training step. Bytes are of bf16 weights and activations; `activations_checkpointed` and
    `flops_checkpointed` are with gradient checkpointing of every block."""

    backbone: str
    batch: int
    pixels: tuple[int, int, int]                # frames, height, width
    latents: tuple[int, int, int]
    tokens: int                                 # video tokens of a clip
    parameters: int
    activations: int
    activations_checkpointed: int
    flops: int
    flops_checkpointed: int
    added: int = 0                              # parameters that a method adds
    trained: int = 0                            # parameters that are trained
    streams: int = 1                            # 2: another stream of latents goes beside the video's

    @property
    def fixed(self) -> dict[str, int]:
        """Bytes that do not depend on the clip: bf16 weights, and of what is trained gradients and AdamW's two states in fp32."""
        return {"weights": 2 * self.parameters, "gradients": 2 * self.trained, "optimiser": 8 * self.trained}

    def seconds(self, tflops: float, checkpointed: bool = False) -> float:
        """Seconds per step at a sustained speed of `tflops` TFLOP/s."""
        return (self.flops_checkpointed if checkpointed else self.flops) / (1e12 * tflops)


def measure(backbone: str, frames: int = 17, height: int | None = None, width: int | None = None,
            batch: int = 1, attach: Callable | None = None) -> Size:
    """Count a training step of `backbone` on the meta device.

    Args:
        backbone: small, wan-1.3b, cogvideox-2b, or a folder with diffusers' config.json (its own, or in transformer/).
        frames, height, width: of the clip, in pixels; by default the published size (small: 48 x 48).
        batch: clips per step.
        attach: (transformer, channels): what a method adds to it and lets be trained (`Method.attach_to`); None: all is trained.

    Raises:
        MotionLabError: an unknown backbone (naming the nearest), a folder or a clip size that it cannot do.
    """
    with torch.device("meta"):
        model, blocks, inputs, about = _built(backbone, frames, height, width, batch, attach)
        with heads_run(model):
            counted = count(model, blocks, inputs)
    return Size(backbone, batch, parameters=_parameters(model), trained=_parameters(model, True), **about, **counted)


# --- building

def _built(backbone, frames, height, width, batch, attach=None):
    """(model in bf16, its blocks, inputs, what it was built for), all on the current device."""
    if backbone == "small":
        return _small(frames, height or 48, width or 48, batch, attach)
    if Path(backbone, "model_index.json").is_file():
        return _snapshot(Path(backbone), frames, height, width, batch, attach)
    about = FULL_SIZE.get(backbone) or _from_folder(backbone)
    latents, pixels = _latents(frames, height or about.height, width or about.width, about.stride, 2)
    import diffusers

    model = getattr(diffusers, about.kind)(**about.arguments)
    found = _attached(model, model.config.in_channels, attach)
    with _quietly():
        model = model.to(torch.bfloat16)
    inputs = (_wan_inputs if about.kind.startswith("Wan") else _cogvideox_inputs)(model.config, latents, batch)
    return model, getattr(model, BLOCKS[about.kind]), inputs, _shape(pixels, latents, 2) | found


def _snapshot(folder, frames, height, width, batch, attach):
    """Any class of snapshot, by what its `Pipe` feeds to the network."""
    from motionlab.models.open import pipe_class

    pipe = pipe_class(folder).of_configs(folder)
    pipe.set_clip(frames or pipe.frames, height or pipe.size[0], width or pipe.size[1])
    found = _attached(pipe.denoiser, pipe.channels, attach)
    with _quietly():
        pipe.denoiser.to(torch.bfloat16)
    f, c, h, w = pipe.shape
    text, known = pipe.example(batch)
    z = torch.zeros(batch, f, c * found["streams"], h, w, dtype=torch.bfloat16)
    inputs = {"z": z, "timestep": torch.zeros(batch), "text": text, "known": known}
    about = {"pixels": (pipe.frames, *pipe.size), "latents": (f, h, w), "tokens": pipe.tokens}
    blocks = [block for stack in pipe.blocks for block in getattr(pipe.denoiser, stack)]
    return _Native(pipe), blocks, inputs, about | found


class _Native(nn.Module):
    """A pipe's network called in its own convention, as a module whose parameters are the network's alone."""

    def __init__(self, pipe):
        super().__init__()
        self.transformer, self._pipe = pipe.denoiser, [pipe]

    def forward(self, **inputs):
        try:
            return self._pipe[0].native(**inputs)
        except (RuntimeError, NotImplementedError) as error:
            raise MotionLabError(f"{type(self.transformer).__name__} cannot be counted without memory ({error}).",
                                 fix="Time a real step of it instead: `motionlab train` says what it takes.") from None


def _attached(transformer, channels, attach):
    """What a method adds to the transformer, which is changed in place: parameters, and streams of latents."""
    before, read = _parameters(transformer), transformer.config.in_channels
    if attach is not None:
        attach(transformer, channels)
    return {"added": _parameters(transformer) - before, "streams": 1 + (transformer.config.in_channels > read)}


def _parameters(model, trained=False):
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trained)


def _small(frames, height, width, batch, attach):
    """The kit's own: codec stride 4, patch 1; the text encoder is trained with it and counted."""
    latents, pixels = _latents(frames, height, width, 4, 1)
    config = BackboneConfig(height=latents[1], width=latents[2], max_frames=max(BackboneConfig.max_frames, latents[0]))
    model = Backbone(config)
    found = _attached(model.transformer, config.channels, attach)
    model.text.requires_grad_(all(p.requires_grad for p in model.transformer.parameters()))      # frozen with the rest
    x_t = torch.zeros(batch, latents[0], config.channels, *latents[1:], dtype=torch.bfloat16)
    inputs = {"x_t": x_t, "t": torch.zeros(batch), "tokens": torch.zeros(batch, config.text_length, dtype=torch.long)}
    inputs |= {"extra": torch.zeros_like(x_t)} if found["streams"] == 2 else {}
    about = _shape(pixels, latents, 1) | found
    return model.to(torch.bfloat16), model.transformer.transformer_blocks, inputs, about


def _from_folder(backbone: str) -> Architecture:
    if not Path(backbone).is_dir():
        try:
            one_of(backbone, NAMES, "backbone")
        except MotionLabError as error:
            raise MotionLabError(error.what, fix=f"{error.fix} Or give a folder with diffusers' config.json.") from None
    places = (Path(backbone, "transformer", "config.json"), Path(backbone, "config.json"))
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise MotionLabError(f"{backbone} holds no config.json of a diffusers model.", fix="Give the model folder.")
    try:
        config = parse_json(path.read_text(encoding="utf-8"))
        kind = one_of(config["_class_name"], BLOCKS, f"class in {path}:")
    except (ValueError, KeyError, TypeError) as error:
        raise MotionLabError(f"{path} is no diffusers config ({error}).", fix="Fetch the file again.") from None
    patch = config.get("patch_size", 2)
    if config.get("patch_size_t") or config.get("ofs_embed_dim") or patch not in (2, [1, 2, 2]):
        raise MotionLabError(f"{path}: patches in time (CogVideoX 1.5) are not counted.", fix="Give another model.")
    arguments = {name: value for name, value in config.items() if not name.startswith("_")}
    return Architecture(backbone, kind, arguments, 8, 480, 832 if kind.startswith("Wan") else 720)


def _latents(frames, height, width, stride, patch):
    """(frames, height, width) of the latents, and of the clip."""
    if frames < 1 or (frames - 1) % GROUP:
        raise MotionLabError(f"A clip of {frames} frames does not fit: lengths are 1 + 4k.",
                             fix=f"For example {max(1, frames - (frames - 1) % GROUP)} frames.")
    if min(height, width) < 1 or height % (stride * patch) or width % (stride * patch):
        raise MotionLabError(f"A clip of {height}x{width} does not divide into patches of {stride * patch} pixels.",
                             fix=f"Give a height and a width that are multiples of {stride * patch}.")
    return (1 + (frames - 1) // GROUP, height // stride, width // stride), (frames, height, width)


def _shape(pixels, latents, patch):
    return {"pixels": pixels, "latents": latents, "tokens": latents[0] * (latents[1] // patch) * (latents[2] // patch)}


def _wan_inputs(config, latents, batch):
    text = torch.zeros(batch, WAN_TEXT_TOKENS, config.text_dim, dtype=torch.bfloat16)
    return {"hidden_states": torch.zeros(batch, config.in_channels, *latents, dtype=torch.bfloat16),
            "timestep": torch.zeros(batch, dtype=torch.long), "encoder_hidden_states": text, "return_dict": False}


def _cogvideox_inputs(config, latents, batch):
    f, h, w = latents
    text = torch.zeros(batch, config.max_text_seq_length, config.text_embed_dim, dtype=torch.bfloat16)
    return {"hidden_states": torch.zeros(batch, f, config.in_channels, h, w, dtype=torch.bfloat16),
            "timestep": torch.zeros(batch, dtype=torch.long), "encoder_hidden_states": text, "return_dict": False}


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without diffusers' warning that some norms want fp32: nothing is computed here, or with random weights only."""
    from diffusers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


# --- timing

def time_on_cuda(size: Size, device: str = "cuda", steps: int = 5, attach: Callable | None = None) -> dict[str, Any]:
    """Run the same architecture with random bf16 weights: forward and backward pass, no optimiser.

    Gradient checkpointing is on where the count says that a step would not fit without. attach: as `measure` was given.

    Returns:
        seconds (median per step), tflops (sustained), peak (bytes of GPU memory), checkpointed.

    Raises:
        MotionLabError: it does not fit into the free memory either way.
    """
    free = torch.cuda.mem_get_info(device)[0]
    fixed = size.fixed["weights"] + size.fixed["gradients"]
    checkpointed = fixed + size.activations > 0.9 * free
    if checkpointed and fixed + size.activations_checkpointed > free:
        raise MotionLabError(f"A step of {size.backbone} needs about {gb(fixed + size.activations_checkpointed)}, "
                             f"{gb(free)} are free on {device}.", fix="Give fewer frames, a smaller picture or batch.")
    try:
        with torch.device(device):
            model, _, inputs, _ = _built(size.backbone, *size.pixels, size.batch, attach)
        torch.cuda.reset_peak_memory_stats(device)
        seconds = time_steps(model, inputs, checkpointed, steps, lambda: torch.cuda.synchronize(device))
    except torch.cuda.OutOfMemoryError:
        raise MotionLabError(f"A step of {size.backbone} does not fit into the {gb(free)} that were free on {device}.",
                             fix="Give fewer frames, a smaller picture or batch.") from None
    flops = size.flops_checkpointed if checkpointed else size.flops
    return {"seconds": seconds, "tflops": flops / seconds / 1e12, "peak": torch.cuda.max_memory_allocated(device),
            "checkpointed": checkpointed}


# --- text

def gb(size: float) -> str:
    """Bytes as people read them."""
    return f"{size / 2**30:.2f} GB" if size >= 2**30 / 10 else f"{size / 2**20:.1f} MB"


def render(size: Size, tflops: float | None = None, said: str = "given", timed: dict[str, Any] | None = None) -> str:
    """The counts as text for a terminal.

    Args:
        tflops: sustained speed to expect a step's time from. said: where that number comes from.
        timed: what `time_on_cuda` returned.
    """
    fixed, total = size.fixed, sum(size.fixed.values())
    frames, height, width = size.pixels
    lines = [
        f"{size.backbone}: {size.parameters / 1e6:,.1f} M parameters"
        + (f", {size.added / 1e6:.3g} M of them added by the method" if size.added else "")
        + (f", {size.trained / 1e6:.3g} M trained" if size.trained < size.parameters else ""),
        f"clip of {frames} frames of {height}x{width}, latents {size.latents[0]}x{size.latents[1]}x{size.latents[2]}"
        f"{', of video and of a second stream' if size.streams == 2 else ''}, {size.tokens} video tokens; batch {size.batch}",
        "",
        "Memory of training",
        f"  weights, bf16             {gb(fixed['weights'])}",
        f"  gradients, bf16           {gb(fixed['gradients'])}",
        f"  AdamW, two fp32 states    {gb(fixed['optimiser'])}",
        f"  activations               {gb(size.activations)}     total {gb(total + size.activations)}",
        f"  ... with checkpointing    {gb(size.activations_checkpointed)}     total "
        f"{gb(total + size.activations_checkpointed)}",
        "  (activations: all that autograd keeps for the backward pass in bf16 with fused attention; with gradient",
        "   checkpointing: what it keeps outside the blocks + every block's input + one block. Passing buffers are not",
        f"   in it. fp32 weights, gradients and EMA, as motionlab.training has them, add {gb(8 * size.trained)}.)",
        "",
        "Work of a training step",
        f"  {size.flops / 1e12:.4g} TFLOP; {size.flops_checkpointed / 1e12:.4g} with gradient checkpointing",
    ]
    if tflops:
        lines += [f"  about {size.seconds(tflops):.3g} s at {tflops:g} TFLOP/s ({said}); "
                  f"{size.seconds(tflops, True):.3g} s with gradient checkpointing"]
    if timed:
        how = "with" if timed["checkpointed"] else "without"
        lines += [f"  timed with random weights, {how} checkpointing, no optimiser: {timed['seconds']:.3g} s, "
                  f"{timed['tflops']:.1f} TFLOP/s sustained, {gb(timed['peak'])} of GPU memory at the most"]
    return "\n".join(lines)
