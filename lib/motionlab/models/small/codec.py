"""A light video codec with the geometry of a real video VAE: causal in time, 1 + 4k frames, 4x in time and in space.

All convolutions run at latent resolution: a frame's 4x4 pixel patches become channels first. The first frame is encoded
alone (so one picture is a clip), every later latent holds four frames. Norms act within one latent frame, convolutions
in time look back only: a later frame never changes an earlier latent. Deterministic; the decoder is trained on noisy
latents so that it stays smooth where a generator errs. Latents are standardised per channel by stored statistics.
"""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from motionlab.core.errors import MotionLabError
from motionlab.models.checkpoint import fill, fingerprint, read_model, save_model

KIND = "motionlab.codec"


@dataclass(frozen=True)
class CodecConfig:
    """Sizes. stride: pixels per latent in space. group: frames per latent after the first. channels: of the latent."""

    channels: int = 24
    width: int = 128
    encoder_blocks: int = 3
    decoder_blocks: int = 6
    stride: int = 4
    group: int = 4


class Block(nn.Module):
    """Residual block on (b, c, f, h, w): 3x3 in space, then two frames back in time."""

    def __init__(self, width: int):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, width), nn.GroupNorm(8, width)
        self.space = nn.Conv2d(width, width, 3, padding=1)
        self.time = nn.Conv1d(width, width, 3)
        nn.init.zeros_(self.time.weight), nn.init.zeros_(self.time.bias)      # starts as the identity

    def forward(self, x):
        b, _, f, h, w = x.shape
        y = rearrange(x, "b c f h w -> (b f) c h w")
        y = self.space(F.silu(self.norm1(y)))
        y = rearrange(F.silu(self.norm2(y)), "(b f) c h w -> (b h w) c f", b=b, f=f)
        y = self.time(F.pad(y, (2, 0)))                                       # causal: padded in the past only
        return x + rearrange(y, "(b h w) c f -> b c f h w", b=b, h=h, w=w)


class Codec(nn.Module):
    """Video (b, f, 3, h, w) in [-1, 1] <-> latents (b, 1 + (f-1)/4, channels, h/4, w/4), standardised per channel.

    `fingerprint` names the file that it was loaded from ("" for none): latents of one codec mean nothing to another.
    """

    def __init__(self, config: CodecConfig = CodecConfig()):
        super().__init__()
        self.config, self.fingerprint, width = config, "", config.width
        patch = 3 * config.stride ** 2
        self.first_in, self.group_in = nn.Linear(patch, width), nn.Linear(patch * config.group, width)
        self.encoder = nn.Sequential(*(Block(width) for _ in range(config.encoder_blocks)))
        self.to_latent, self.from_latent = nn.Linear(width, config.channels), nn.Linear(config.channels, width)
        self.decoder = nn.Sequential(*(Block(width) for _ in range(config.decoder_blocks)))
        self.first_out, self.group_out = nn.Linear(width, patch), nn.Linear(width, patch * config.group)
        self.register_buffer("mean", torch.zeros(config.channels))
        self.register_buffer("std", torch.ones(config.channels))

    # ------------------------------------------------------------------ geometry
    def latent_frames(self, frames: int) -> int:
        """Number of latent frames of a clip.

        Raises:
            MotionLabError: the length is not 1 + 4k.
        """
        group = self.config.group
        if frames < 1 or (frames - 1) % group:
            below = max(1, frames - (frames - 1) % group)
            raise MotionLabError(f"A clip of {frames} frames does not fit the codec: lengths are 1 + {group}k.",
                                 fix=f"Use {below} or {below + group} frames.")
        return 1 + (frames - 1) // group

    def _check_video(self, video):
        if video.ndim != 5 or video.shape[2] != 3:
            raise MotionLabError(f"The codec takes video (b, f, 3, h, w); got shape {tuple(video.shape)}.",
                                 fix="Clip.video()[None] has this shape.")
        s = self.config.stride
        if video.shape[3] % s or video.shape[4] % s:
            raise MotionLabError(f"Frames of {video.shape[3]}x{video.shape[4]} do not divide into {s}x{s} patches.",
                                 fix=f"Resize or crop to multiples of {s}.")
        self.latent_frames(video.shape[1])

    # ------------------------------------------------------------------ coding
    def encode(self, video: torch.Tensor) -> torch.Tensor:
        """Latents (b, f', c, h/4, w/4) of video (b, f, 3, h, w) in [-1, 1].

        Raises:
            MotionLabError: wrong shape, length not 1 + 4k, frames that do not divide into patches.
        """
        self._check_video(video)
        s, g = self.config.stride, self.config.group
        patches = rearrange(video, "b f c (h p) (w q) -> b f h w (c p q)", p=s, q=s)
        x = self.first_in(patches[:, :1])
        if video.shape[1] > 1:
            groups = rearrange(patches[:, 1:], "b (f g) h w c -> b f h w (g c)", g=g)
            x = torch.cat([x, self.group_in(groups)], dim=1)
        x = self.encoder(rearrange(x, "b f h w c -> b c f h w"))
        z = self.to_latent(rearrange(x, "b c f h w -> b f h w c"))
        return rearrange((z - self.mean) / self.std, "b f h w c -> b f c h w")

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Video (b, 1 + 4(f'-1), 3, h, w) of latents (b, f', c, h', w'); values near [-1, 1], not clipped.

        Raises:
            MotionLabError: latents with another number of channels (another codec's).
        """
        if latents.ndim != 5 or latents.shape[2] != self.config.channels:
            raise MotionLabError(f"This codec decodes latents (b, f, {self.config.channels}, h, w); got {tuple(latents.shape)}.",
                                 fix="Use the codec that the latents were made with.")
        s, g = self.config.stride, self.config.group
        z = rearrange(latents, "b f c h w -> b f h w c") * self.std + self.mean
        x = self.decoder(rearrange(self.from_latent(z), "b f h w c -> b c f h w"))
        x = rearrange(x, "b c f h w -> b f h w c")
        patches = self.first_out(x[:, :1])
        if latents.shape[1] > 1:
            rest = rearrange(self.group_out(x[:, 1:]), "b f h w (g c) -> b (f g) h w c", g=g)
            patches = torch.cat([patches, rest], dim=1)
        return rearrange(patches, "b f h w (c p q) -> b f c (h p) (w q)", p=s, q=s)

    def forward(self, video: torch.Tensor, scale: torch.Tensor, noise: torch.Tensor):
        """Reconstruction from latents with noise added, and the clean latents; arguments as in `codec_loss`."""
        z = self.encode(video)
        spread = z.detach().std(dim=(0, 1, 3, 4), keepdim=True)
        return self.decode(z + scale.view(-1, 1, 1, 1, 1).to(z) * spread * noise.to(z)), z

    @torch.no_grad()
    def standardise(self, videos: torch.Tensor) -> None:
        """Set the stored statistics so that the latents of `videos` have mean 0 and deviation 1 per channel."""
        self.mean.zero_(), self.std.fill_(1.0)
        z = rearrange(self.encode(videos), "b f c h w -> c (b f h w)")
        self.mean.copy_(z.mean(1)), self.std.copy_(z.std(1).clamp(min=1e-4))


def codec_loss(codec: Codec, video: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """L1 + 2 MSE of the reconstruction from noisy latents, per clip (b,), plus a light pull of the latents to zero.

    Args:
        weight: (b, f, 1, h, w), larger on subjects, which are small and matter most.
        scale: (b,) size of the latent noise, in units of the latent's own deviation per channel.
        noise: standard normal, in the latents' shape (b, f', c, h', w').
    """
    reconstruction, z = codec(video, scale, noise)
    error = (reconstruction - video).float()
    per_pixel = (error.abs() + 2 * error.square()) * weight
    return per_pixel.mean(dim=(1, 2, 3, 4)) + 1e-3 * z.float().square().mean(dim=(1, 2, 3, 4))


# ---------------------------------------------------------------------------------------------- files
def save_codec(codec: Codec, path: str | Path, dtype=torch.bfloat16, **card) -> Path:
    """Write weights (bf16) with config and `card` (data, steps) as safetensors metadata."""
    return save_model(codec, path, KIND, dtype, **card)


def load_codec(path: str | Path, device: str = "cpu") -> Codec:
    """Read a codec written by `save_codec`, in float32, ready for inference.

    Raises:
        MotionLabError: no such file, truncated, or the file of something else.
    """
    config, _, tensors = read_model(path, KIND, "codec", CodecConfig)
    codec = fill(Codec(config), tensors, path)
    codec.fingerprint = fingerprint(path)
    return codec.to(device).eval()
