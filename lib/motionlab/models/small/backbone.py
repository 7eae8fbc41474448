"""The small video DiT: diffusers' CogVideoXTransformer3DModel, unmodified, in the kit's time convention.

One checkpoint serves text-to-video, first-frame and first+last-frame conditioning, and every length up to
`max_frames` latent frames: positions are computed (rotary in every layer, or sin-cos at the input), so a length is never
learned. Known frames enter as a condition latent beside the noisy one, with a mask channel that says which frames they are.
"""
from __future__ import annotations

import copy
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from torch import nn

from motionlab.core.errors import MotionLabError, one_of
from motionlab.models.small.attention import JointAttention, PlainAttention
from motionlab.models.checkpoint import AGAIN, fill, read_model, save_model
from motionlab.models.small.text import Grammar, TextEncoder

KIND = "motionlab.backbone"
MODES = ("text", "first", "first_last")


@dataclass(frozen=True)
class BackboneConfig:
    """Sizes of a backbone. `channels`, `height`, `width` describe the codec's latent; lengths count latent frames.

    rotary: positions turn queries and keys in every layer, as in CogVideoX-5B (and Wan, HunyuanVideo, LTX); else sin-cos
    positions are added at the input, as in CogVideoX-2B.

    Raises:
        MotionLabError: sizes that cannot be built together.
    """

    d: int = 192
    layers: int = 8
    heads: int = 6
    channels: int = 24
    height: int = 12
    width: int = 12
    max_frames: int = 7
    patch: int = 1
    d_text: int = 128
    text_length: int = 32
    d_time: int = 192
    rotary: bool = False

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "rotary" and (type(value) is not int or value < 1):
                raise MotionLabError(f"Backbone setting {field.name} is {value!r}.",
                                     fix=f"Give a whole number >= 1, for example {field.default}.")
        if self.d % self.heads or self.d % 16:
            raise MotionLabError(f"A width d={self.d} does not divide by 16 (sin-cos positions) "
                                 f"and by heads={self.heads}.",
                                 fix="For example d=192, heads=6.")
        if self.rotary and self.d // self.heads % 16:
            raise MotionLabError(f"Heads of width {self.d // self.heads} cannot be turned by three positions.",
                                 fix="Rotary positions need heads of a multiple of 16, for example d=192, heads=3.")
        if self.height % self.patch or self.width % self.patch:
            raise MotionLabError(f"Latents of {self.height}x{self.width} do not divide into patches of {self.patch}.",
                                 fix="Choose patch 1 or 2.")


class Backbone(nn.Module):
    """Text, noisy latent, time and known frames -> velocity.

    Args:
        config: its sizes.
        seed: of the initial weights; the global random state is left as it was.

    Attributes: `transformer` (the diffusers model), `text` (TextEncoder), `grammar` (tokeniser), `codec_fingerprint` (of the
    codec whose latents it was trained on, "" for not known).
    """

    def __init__(self, config: BackboneConfig | None = None, seed: int = 0):
        super().__init__()
        self.config = config or BackboneConfig()
        self.grammar, self.codec_fingerprint = Grammar(self.config.text_length), ""
        self._turns: dict = {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.text = TextEncoder(len(self.grammar), self.config.d_text, self.config.text_length)
            self.transformer = _transformer(self.config)

    def forward(self, x_t: torch.Tensor, t: torch.Tensor, tokens: torch.Tensor, cond: torch.Tensor | None = None,
                cond_mask: torch.Tensor | None = None, extra: torch.Tensor | None = None) -> torch.Tensor:
        """The velocity u (b, f, c, h, w) at x_t (b, f, c, h, w), t (b,) in [0, 1].

        Args:
            tokens: (b, n) of `Grammar.encode`.
            cond: latents of known frames, (b, f, c, h, w); what lies where the mask is off is never read.
            cond_mask: (b, f) bool, True where the frame is known. None: text-to-video.
            extra: further channels (b, f, n, h, w) behind these, for a transformer whose projections were widened.

        Raises:
            MotionLabError: other channels, grid, length or batch than the config's; a mask without latents.
        """
        self._check(x_t, t, tokens)
        known, mask = self._condition(x_t, cond, cond_mask)
        t = torch.as_tensor(t, device=x_t.device).expand(len(x_t))
        # CogVideoX counts time 0..1000 from clean to noise; t keeps its precision because the sinusoids are float32.
        parts = [x_t, known, mask] if extra is None else [x_t, known, mask, extra]
        with PlainAttention():
            return self.transformer(torch.cat(parts, 2), self.text(tokens).to(x_t.dtype), 1000 * (1 - t.float()),
                                    image_rotary_emb=self._turn(x_t.shape[1], x_t.device), return_dict=False)[0]

    def _turn(self, f, device):
        """cos and sin (f h w, head width) of a clip's positions; None for added positions."""
        if self.config.rotary and (f, device) not in self._turns:
            from diffusers.models.embeddings import get_3d_rotary_pos_embed

            c = self.config
            grid = (c.height // c.patch, c.width // c.patch)
            self._turns[f, device] = get_3d_rotary_pos_embed(c.d // c.heads, ((0, 0), grid), grid, f, device=device)
        return self._turns.get((f, device))

    def _check(self, x_t, t, tokens):
        c = self.config
        if x_t.dim() != 5:
            raise MotionLabError(f"Latents of shape {tuple(x_t.shape)} were given.",
                                 fix="The backbone reads (b, f, c, h, w).")
        b, f, channels, h, w = x_t.shape
        if channels != c.channels:
            raise MotionLabError(f"The latents have {channels} channels; "
                                 f"this backbone was made for a codec of {c.channels}.",
                                 fix="Use the codec that the backbone was trained with.")
        if (h, w) != (c.height, c.width):
            raise MotionLabError(f"The latents are {h}x{w}; this backbone's grid is {c.height}x{c.width}.",
                                 fix="Encode video of the size that the backbone was trained at.")
        if not 1 <= f <= c.max_frames:
            raise MotionLabError(f"The clip has {f} latent frames; this backbone does 1 to {c.max_frames}.",
                                 fix="A clip of 1+4k frames has k+1 latent frames: "
                                     f"at most {4 * c.max_frames - 3} frames.")
        if len(tokens) != b or torch.as_tensor(t).numel() not in (1, b):
            raise MotionLabError(f"{b} clips, {len(tokens)} texts and {torch.as_tensor(t).numel()} times were given.",
                                 fix="Give one of each per clip.")

    def _condition(self, x_t, cond, cond_mask):
        b, f, _, h, w = x_t.shape
        if cond_mask is None:
            if cond is not None:
                raise MotionLabError("Known frames were given without a mask.",
                                     fix="Pass cond_mask=condition_mask('first', b, f).")
            return torch.zeros_like(x_t), x_t.new_zeros(b, f, 1, h, w)
        if tuple(cond_mask.shape) != (b, f) or cond_mask.dtype != torch.bool:
            raise MotionLabError(f"The mask of known frames is {cond_mask.dtype} {tuple(cond_mask.shape)}.",
                                 fix=f"Give a bool mask ({b}, {f}), one entry per latent frame.")
        if cond is None:
            if bool(cond_mask.any()):
                raise MotionLabError("The mask marks known frames, but no latents of them were given.",
                                     fix="Pass cond=, or leave the mask out.")
            cond = torch.zeros_like(x_t)
        if cond.shape != x_t.shape:
            raise MotionLabError(f"The conditioning latents {tuple(cond.shape)} differ in size "
                                 f"from the clip's {tuple(x_t.shape)}.",
                                 fix="Encode the conditioning frame at the clip's size, "
                                     "and place it with `place_frames`.")
        mask = cond_mask.to(x_t.device)[:, :, None, None, None]
        known = torch.where(mask, cond.to(x_t), torch.zeros_like(x_t))       # not a product: NaN * 0 is NaN
        return known, mask.to(x_t.dtype).expand(b, f, 1, h, w)


def _transformer(c: BackboneConfig) -> nn.Module:
    from diffusers import CogVideoXTransformer3DModel

    made = CogVideoXTransformer3DModel(
        num_attention_heads=c.heads, attention_head_dim=c.d // c.heads, num_layers=c.layers,
        in_channels=2 * c.channels + 1, out_channels=c.channels, time_embed_dim=c.d_time,
        text_embed_dim=c.d_text, max_text_seq_length=c.text_length, patch_size=c.patch,
        sample_width=c.width, sample_height=c.height, sample_frames=4 * c.max_frames - 3, temporal_compression_ratio=4,
        spatial_interpolation_scale=1.0, use_rotary_positional_embeddings=c.rotary,
        use_learned_positional_embeddings=False)
    for block in made.transformer_blocks:
        block.attn1.set_processor(JointAttention())
    return made


def deeper(backbone: Backbone, layers: int) -> Backbone:
    """A backbone of more blocks that computes the same, from which a larger model can be trained on.

    Blocks are repeated, spread evenly over the depth; a copy's gates are zero, so that it adds nothing until it is trained.

    Raises:
        MotionLabError: fewer blocks than there are, or more than twice as many.
    """
    old = backbone.transformer.transformer_blocks
    if not len(old) <= layers <= 2 * len(old):
        raise MotionLabError(f"A backbone of {len(old)} blocks cannot grow to {layers}.", fix=f"Ask for {len(old)} to {2 * len(old)}.")
    repeated = set(torch.linspace(0, len(old) - 1, layers - len(old)).round().int().tolist()) if layers > len(old) else set()
    blocks = []
    for k, block in enumerate(old):
        blocks += [block, _silent_copy(block)] if k in repeated else [block]
    out = Backbone(replace(backbone.config, layers=layers))
    out.codec_fingerprint = backbone.codec_fingerprint
    out.text.load_state_dict(backbone.text.state_dict())
    plain = {k: v for k, v in backbone.transformer.state_dict().items() if not k.startswith("transformer_blocks.")}
    grown = {f"transformer_blocks.{i}.{k}": v for i, block in enumerate(blocks) for k, v in block.state_dict().items()}
    out.transformer.load_state_dict(plain | grown)
    return out


def _silent_copy(block):
    """The block with the gates of both residual branches, for video and text, at zero (chunks 2 and 5 of its modulation)."""
    copied = copy.deepcopy(block)
    with torch.no_grad():
        for norm in (copied.norm1, copied.norm2):
            for value in (norm.linear.weight, norm.linear.bias):
                chunks = value.chunk(6)
                chunks[2].zero_(), chunks[5].zero_()
    return copied


# --- conditioning

def condition_mask(mode: str, b: int, f: int) -> torch.Tensor:
    """Which latent frames a mode knows, (b, f) bool. Modes: text (none), first, first_last.

    Raises:
        MotionLabError: an unknown mode, or a clip so short that nothing would be left to generate.
    """
    one_of(mode, MODES, "conditioning mode")
    if f <= MODES.index(mode):
        raise MotionLabError(f"With '{mode}' frames given, a clip of {f} latent frame{'s' * (f != 1)} "
                             "leaves nothing to generate.",
                             fix="Ask for a longer clip.")
    mask = torch.zeros(b, f, dtype=torch.bool)
    mask[:, 0] = mode != "text"
    mask[:, -1] |= mode == "first_last"
    return mask


def draw_condition_mask(b: int, f: int, generator: torch.Generator, first: float = 0.2,
                        first_last: float = 0.1) -> torch.Tensor:
    """Training's mixture of modes, one drawn per clip: (b, f) bool. The rest of the probability is text-to-video.

    Clips too short for a mode get the next simpler one; a mixture of text only, or single frames, draw nothing.
    """
    if min(first, first_last) < 0 or first + first_last > 1:
        raise MotionLabError(f"Mode probabilities first={first} and first_last={first_last} are no mixture.",
                             fix="Both >= 0, together <= 1.")
    mask = torch.zeros(b, f, dtype=torch.bool)
    if f > 1 and first + first_last > 0:
        u = torch.rand(b, generator=generator)
        mask[:, 0] = u < first + first_last
        mask[:, -1] |= (u < first_last) & (f > 2)
    return mask


def place_frames(frames: dict[int, torch.Tensor], f: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`cond` (b, f, c, h, w) and `cond_mask` (b, f) from single latents {index: (b, c, h, w)}; -1 is the last frame.

    Raises:
        MotionLabError: no frames, an index outside the clip, frames of different sizes.
    """
    shapes = {tuple(latent.shape) for latent in frames.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 4:
        raise MotionLabError(f"The conditioning frames have shapes {sorted(shapes)}.",
                             fix="Give one or more latents (b, c, h, w) of one size.")
    first = next(iter(frames.values()))
    cond = first.new_zeros(len(first), f, *first.shape[1:])
    mask = torch.zeros(len(first), f, dtype=torch.bool, device=first.device)
    for index, latent in frames.items():
        if not -f <= index < f:
            raise MotionLabError(f"There is no latent frame {index} in a clip of {f}.",
                                 fix=f"Use 0 to {f - 1}, or -1 for the last.")
        cond[:, index], mask[:, index] = latent, True
    return cond, mask


# --- files

def save_backbone(backbone: Backbone, path: str | Path, dtype: torch.dtype | None = None, note: dict[str, str] | None = None) -> Path:
    """Write weights as safetensors with config, vocabulary and the codec's fingerprint in the metadata.

    Args:
        dtype: torch.bfloat16 for shipped files; None keeps the weights exact.
        note: further metadata, text to text (steps, data).
    """
    about = {"vocabulary": " ".join(backbone.grammar.words), "codec": backbone.codec_fingerprint}
    return save_model(backbone, path, KIND, dtype, **(note or {}), **about)


def load_backbone(path: str | Path, codec=None, dtype: torch.dtype = torch.float32) -> Backbone:
    """The backbone of a file of `save_backbone`, in eval mode.

    Args:
        codec: the `Codec` that it is to work with, checked when given.

    Raises:
        MotionLabError: no such file; truncated or foreign; made for another codec or another grammar.
    """
    config, meta, tensors = read_model(path, KIND, "backbone", BackboneConfig)
    backbone = Backbone(config)
    _check_codec(codec, backbone.config, meta.get("codec", ""), path)
    if meta.get("vocabulary", "").split() != list(backbone.grammar.words):
        raise MotionLabError(f"'{path}' was trained on another vocabulary of the world's grammar.", fix=AGAIN)
    fill(backbone, tensors, path).codec_fingerprint = meta.get("codec", "")
    return backbone.to(dtype).eval()


def _check_codec(codec, config, trained_with, path):
    """Channels must agree, and the very file where both are known: another codec's latents look alike and decode to noise."""
    if codec is None:
        return
    if codec.config.channels != config.channels:
        raise MotionLabError(f"Wrong codec: '{path}' was made for latents of {config.channels} channels, "
                             f"this codec has {codec.config.channels}.", fix="Use the codec that it was trained with.")
    if trained_with and codec.fingerprint and trained_with != codec.fingerprint:
        raise MotionLabError(f"Wrong codec: '{path}' was trained with codec {trained_with}, this one is {codec.fingerprint}.",
                             fix="Use the codec that it was trained with.")
