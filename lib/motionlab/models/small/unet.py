"""The small video U-Net: diffusers' UNetSpatioTemporalConditionModel, unmodified, over frames that were encoded one by one.

Stable Video Diffusion's class in the kit's time convention. Known frames enter as two more latents, the same for every frame, with
two mask planes; text is the words' embeddings, read by cross-attention, and may differ from frame to frame (`models.frame_text`).
"""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from motionlab.core.errors import MotionLabError
from motionlab.models.checkpoint import AGAIN, fill, read_model, save_model
from motionlab.models.frame_text import FrameText, per_frame
from motionlab.models.small.attention import PlainAttention
from motionlab.models.small.codec import Codec
from motionlab.models.small.text import Grammar, TextEncoder

KIND = "motionlab.unet"
ENDS = 2                    # known frames: the first, the last


@dataclass(frozen=True)
class UNetConfig:
    """Sizes. channels, height, width: of the codec's latent of one picture; widths, heads: per level, each level halves the grid;
    layers: blocks per level; max_frames: longest clip.

    (64, 96) and not (64, 128): the latter has 8.2 M parameters, 16 MB in bf16, where a shipped file holds 12.

    Raises:
        MotionLabError: sizes that cannot be built together.
    """

    channels: int = 24
    height: int = 12
    width: int = 12
    widths: tuple[int, ...] = (64, 96)
    heads: tuple[int, ...] = (2, 3)
    layers: int = 1
    max_frames: int = 9
    d_text: int = 64
    text_length: int = 32

    def __post_init__(self):
        if len(self.widths) != len(self.heads) or any(w % 32 or w % h for w, h in zip(self.widths, self.heads)):
            raise MotionLabError(f"A U-Net of widths {self.widths} with {self.heads} heads cannot be built.",
                                 fix="Give one number of heads per width, and widths of multiples of 32, for example (64, 96) and (2, 3).")
        halved = 2 ** (len(self.widths) - 1)
        if self.height % halved or self.width % halved:
            raise MotionLabError(f"Latents of {self.height}x{self.width} cannot be halved {len(self.widths) - 1} times.",
                                 fix="Give fewer widths.")


class UNet(nn.Module):
    """Text, noisy latents, time and known ends -> velocity.

    Args:
        config: its sizes. seed: of the initial weights; the global random state is left as it was.

    Attributes: `unet` (the diffusers model), `text` (TextEncoder), `grammar`, `mean` and `std` (c,), of the codec's latents of single
    pictures, `codec_fingerprint` (of the codec that it was trained on, "" for not known).
    """

    def __init__(self, config: UNetConfig = UNetConfig(), seed: int = 0):
        super().__init__()
        self.config, self.grammar, self.codec_fingerprint = config, Grammar(config.text_length), ""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.text = TextEncoder(len(self.grammar), config.d_text, config.text_length)
            self.unet = _unet(config)
        self.frame_text = FrameText(self.unet)
        self.register_buffer("mean", torch.zeros(config.channels))
        self.register_buffer("std", torch.ones(config.channels))

    def forward(self, x_t: torch.Tensor, t: torch.Tensor, states: torch.Tensor, cond: torch.Tensor | None = None,
                cond_mask: torch.Tensor | None = None) -> torch.Tensor:
        """The velocity u (b, f, c, h, w) at x_t (b, f, c, h, w), t (b,) in [0, 1].

        Args:
            states: of `TextEncoder`, (b, n, d), or each frame's own (b, f, n, d).
            cond: latents of the first and the last frame, (b, 2, c, h, w); what lies where the mask is off is never read.
            cond_mask: (b, 2) bool. None: neither is known.

        Raises:
            MotionLabError: other channels, grid, length or batch than the config's; ends of another shape.
        """
        b, f = self._check(x_t, t, states)
        ends, masks = self._ends(x_t, cond, cond_mask)
        t = torch.as_tensor(t, device=x_t.device).expand(b)
        self.frame_text.states = per_frame(states, f).to(x_t.dtype)
        try:
            with PlainAttention():
                return self.unet(torch.cat([x_t, ends, masks], 2), 1000 * (1 - t.float()), self.frame_text.states[:, 0],
                                 x_t.new_zeros(b, 1), return_dict=False)[0]
        finally:
            self.frame_text.states = None

    def _check(self, x_t, t, states):
        c = self.config
        if x_t.dim() != 5 or tuple(x_t.shape[2:]) != (c.channels, c.height, c.width):
            raise MotionLabError(f"Latents of shape {tuple(x_t.shape)} were given; this U-Net reads (b, f, {c.channels}, "
                                 f"{c.height}, {c.width}).",
                                 fix="Use the codec that it was trained with, and video of its size.")
        b, f = x_t.shape[:2]
        if not 1 <= f <= c.max_frames:
            raise MotionLabError(f"The clip has {f} frames; this U-Net does 1 to {c.max_frames}.", fix="Ask for a shorter clip.")
        if len(states) != b or torch.as_tensor(t).numel() not in (1, b) or (states.dim() == 4 and states.shape[1] != f):
            raise MotionLabError(f"{b} clips of {f} frames, texts {tuple(states.shape)} and {torch.as_tensor(t).numel()} times were given.",
                                 fix="Give one time and one text per clip, or one text per frame.")
        return b, f

    def _ends(self, x_t, cond, cond_mask):
        """Both ends beside each other (b, f, 2c, h, w), and their masks (b, f, 2, h, w)."""
        b, f, c, h, w = x_t.shape
        if cond is None:
            return x_t.new_zeros(b, f, ENDS * c, h, w), x_t.new_zeros(b, f, ENDS, h, w)
        if tuple(cond.shape) != (b, ENDS, c, h, w) or cond_mask is None or tuple(cond_mask.shape) != (b, ENDS):
            raise MotionLabError(f"The known ends have shape {tuple(cond.shape)}.",
                                 fix=f"Give ({b}, {ENDS}, {c}, {h}, {w}) with a bool mask ({b}, {ENDS}): the first and the last frame.")
        mask = cond_mask.to(x_t.device)[:, :, None, None, None]
        known = torch.where(mask, cond.to(x_t), torch.zeros_like(cond).to(x_t))
        return (known.flatten(1, 2)[:, None].expand(-1, f, -1, -1, -1),
                mask.to(x_t.dtype).transpose(1, 2).expand(b, 1, ENDS, h, w).expand(-1, f, -1, -1, -1))

    @torch.no_grad()
    def standardise(self, codec: Codec, pictures: torch.Tensor) -> None:
        """Set `mean` and `std` so that the codec's latents of these pictures (n, 3, h, w) have mean 0 and deviation 1 per channel.

        As bfloat16 keeps them, so that a shipped file has the very same."""
        z = torch.cat([codec.encode(part[:, None])[:, 0] for part in pictures.split(64)])
        self.mean.copy_(z.mean((0, 2, 3)).bfloat16())
        self.std.copy_(z.std((0, 2, 3)).clamp(min=1e-4).bfloat16())


def _unet(c: UNetConfig) -> nn.Module:
    from diffusers import UNetSpatioTemporalConditionModel

    levels = len(c.widths)
    return UNetSpatioTemporalConditionModel(
        sample_size=c.height, in_channels=(1 + ENDS) * c.channels + ENDS, out_channels=c.channels, block_out_channels=c.widths,
        down_block_types=("CrossAttnDownBlockSpatioTemporal",) * levels, up_block_types=("CrossAttnUpBlockSpatioTemporal",) * levels,
        layers_per_block=c.layers, num_attention_heads=c.heads, cross_attention_dim=c.d_text, num_frames=c.max_frames,
        addition_time_embed_dim=32, projection_class_embeddings_input_dim=32)


# --- files

def save_unet(model: UNet, path: str | Path, dtype: torch.dtype | None = None, note: dict[str, str] | None = None) -> Path:
    """Write weights as safetensors with config, vocabulary and the codec's fingerprint in the metadata.

    Args:
        dtype: torch.bfloat16 for shipped files; None keeps the weights exact.
    """
    about = {"vocabulary": " ".join(model.grammar.words), "codec": model.codec_fingerprint}
    return save_model(model, path, KIND, dtype, **(note or {}), **about)


def load_unet(path: str | Path, codec: Codec | None = None) -> UNet:
    """The U-Net of a file of `save_unet`, in float32 and eval mode.

    Args:
        codec: the `Codec` that it is to work with, checked when given.

    Raises:
        MotionLabError: no such file; truncated or foreign; made for another codec or another grammar.
    """
    config, meta, tensors = read_model(path, KIND, "U-Net", UNetConfig)
    model, trained_with = UNet(config), meta.get("codec", "")
    if codec is not None and trained_with and codec.fingerprint and trained_with != codec.fingerprint:
        raise MotionLabError(f"Wrong codec: '{path}' was trained with codec {trained_with}, this one is {codec.fingerprint}.",
                             fix="Use the codec that it was trained with.")
    if meta.get("vocabulary", "").split() != list(model.grammar.words):
        raise MotionLabError(f"'{path}' was trained on another vocabulary of the world's grammar.", fix=AGAIN)
    fill(model, tensors, path).codec_fingerprint = trained_with
    return model.eval()
