"""A small ViT on single frames, for patch features: the world's stand-in for DINOv2.

Pre-norm transformer on 4x4 pixel patches with fixed sin-cos positions, so that any frame size works. It is trained as a
masked autoencoder (He et al., arXiv 2111.06377); the decoder of that training is not part of the model.
"""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from motionlab.core.errors import MotionLabError
from motionlab.models.checkpoint import fill, read_model, save_model

KIND = "motionlab.image_encoder"


@dataclass(frozen=True)
class ImageEncoderConfig:
    """Sizes. d: width of the features; patch: pixels per token.

    Raises:
        MotionLabError: a width that does not divide by 4 (sin-cos positions) and by heads.
    """

    d: int = 128
    layers: int = 6
    heads: int = 4
    patch: int = 4

    def __post_init__(self):
        if min(self.d, self.layers, self.heads, self.patch) < 1 or self.d % 4 or self.d % self.heads:
            raise MotionLabError(f"An image encoder cannot be built of {self}.",
                                 fix="All at least 1, d a multiple of 4 and of heads: for example d=128, heads=4.")


class ViTBlock(nn.Module):
    """Pre-norm self-attention and MLP of 4 d on tokens (b, n, d)."""

    def __init__(self, d: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.mlp = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, d))

    def forward(self, x):
        qkv = self.qkv(self.norm1(x))
        q, k, v = rearrange(qkv, "b n (three heads d) -> three b heads n d", three=3, heads=self.heads)
        x = x + self.out(rearrange(F.scaled_dot_product_attention(q, k, v), "b heads n d -> b n (heads d)"))
        return x + self.mlp(self.norm2(x))


class ImageEncoder(nn.Module):
    """Frames (b, 3, h, w) in [-1, 1] -> patch features (b, (h/patch)(w/patch), d), row by row."""

    def __init__(self, config: ImageEncoderConfig = ImageEncoderConfig()):
        super().__init__()
        self.config = config
        self.embed = nn.Linear(3 * config.patch ** 2, config.d)
        self.blocks = nn.ModuleList(ViTBlock(config.d, config.heads) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.d)

    def tokens(self, frames: torch.Tensor) -> torch.Tensor:
        """Embedded patches with positions, (b, n, d).

        Raises:
            MotionLabError: another shape, frames that do not divide into patches.
        """
        patches = patchify(frames, self.config.patch)
        h, w = (size // self.config.patch for size in frames.shape[-2:])
        return self.embed(patches) + positions(h, w, self.config.d).to(patches)

    def forward(self, frames: torch.Tensor, keep: torch.Tensor | None = None, layer: int | None = None) -> torch.Tensor:
        """Features (b, n, d); with `keep` (b, m) indices, only those tokens are seen and returned.

        Args:
            layer: 1 to `layers`: output of that block, normalised per token; None: of the last, through the final norm.

        Raises:
            MotionLabError: as `tokens`, or a layer that is not there.
        """
        if layer is not None and not 1 <= layer <= len(self.blocks):
            raise MotionLabError(f"Layer {layer} was asked of an image encoder with {len(self.blocks)}.",
                                 fix="Count from 1.")
        x = self.tokens(frames)
        x = x if keep is None else x.gather(1, keep[..., None].expand(-1, -1, x.shape[-1]))
        for block in self.blocks[:layer]:
            x = block(x)
        return self.norm(x) if layer is None else F.layer_norm(x, x.shape[-1:])

    @property
    def width(self) -> int:
        """Of a patch's feature."""
        return self.config.d

    @torch.no_grad()
    def features(self, frames: torch.Tensor, layer: int | None = None) -> torch.Tensor:
        """Patch features (b, n, d), float32, no gradient; `forward` gives the same with one."""
        return self(frames, layer=layer).float()

    @torch.no_grad()
    def every_layer(self, frames: torch.Tensor) -> list[torch.Tensor]:
        """`features` (b, n, d) of layers 1, 2, ..., in one pass."""
        x, found = self.tokens(frames), []
        for block in self.blocks:
            x = block(x)
            found.append(F.layer_norm(x, x.shape[-1:]).float())
        return found

    @torch.no_grad()
    def pooled(self, frames: torch.Tensor, layer: int | None = None) -> torch.Tensor:
        """Mean of the patch features, (b, d)."""
        return self.features(frames, layer).mean(1)


def patchify(frames: torch.Tensor, patch: int) -> torch.Tensor:
    """Frames (b, 3, h, w) -> patches (b, n, 3 patch^2), row by row.

    Raises:
        MotionLabError: another shape, frames that do not divide into patches.
    """
    if frames.ndim != 4 or frames.shape[1] != 3 or 0 in frames.shape:
        raise MotionLabError(f"The image encoder takes frames (b, 3, h, w); got shape {tuple(frames.shape)}.",
                             fix="A clip's frames are a batch: video.flatten(0, 1).")
    if frames.shape[2] % patch or frames.shape[3] % patch:
        raise MotionLabError(f"{frames.shape[2]}x{frames.shape[3]} pixels do not divide into {patch}x{patch} patches.",
                             fix=f"Resize or crop to multiples of {patch}.")
    return rearrange(frames, "b c (h p) (w q) -> b (h w) (c p q)", p=patch, q=patch)


def positions(h: int, w: int, d: int) -> torch.Tensor:
    """Sin-cos positions (h w, d), row by row: a quarter of the channels each for sin, cos of row, column."""
    rates = 1 / 100 ** (torch.arange(d // 4) / max(1, d // 4))
    y, x = (torch.arange(n).float()[:, None] * rates for n in (h, w))
    y, x = y[:, None].expand(h, w, -1), x[None].expand(h, w, -1)
    return torch.cat([y.sin(), y.cos(), x.sin(), x.cos()], -1).flatten(0, 1)


# ---------------------------------------------------------------------------------------------- files
def save_image_encoder(encoder: ImageEncoder, path: str | Path, dtype=torch.bfloat16, **card) -> Path:
    """Write weights (bf16) with config and `card` (data, steps) as safetensors metadata."""
    return save_model(encoder, path, KIND, dtype, **card)


def load_image_encoder(path: str | Path, device: str = "cpu") -> ImageEncoder:
    """Read an encoder written by `save_image_encoder`, in float32, ready for inference.

    Raises:
        MotionLabError: no such file, truncated, or the file of something else.
    """
    config, _, tensors = read_model(path, KIND, "image encoder", ImageEncoderConfig)
    return fill(ImageEncoder(config), tensors, path).to(device).eval()
