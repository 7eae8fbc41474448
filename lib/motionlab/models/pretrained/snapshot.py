"""Pretrained video diffusion pipelines from a local folder, in the kit's conventions: Wan 2.1 and CogVideoX.

A *snapshot* is the folder that diffusers' `save_pretrained` writes. Nothing is ever downloaded, nothing unpickled.
`Pretrained.backbone` takes the place of `models.backbone.Backbone` and `Pretrained.codec` that of `models.codec.Codec`,
so that samplers, taps, analyses and trainings run on either. Where it differs from the small one: tokens are one number
per prompt, (b, 1), which stand for text states (b, n, d) that are worked out once and kept; no known frames are taken.

Pre- and post-processing follow diffusers' WanPipeline and CogVideoXPipeline:

                  Wan 2.1                                    CogVideoX 2B and 5B
    latents       (z - mean) / std per channel               scaling_factor * z
    clips         1 + 4k frames                              1 + 8k: for other lengths its decoder gives extra frames
    text          512 states, zero behind the last word      226 states, the padding's too
    network       flow, timestep = 1000 (1 - t)              v prediction at the timestep of equal log-SNR
    own grid      shifted by its scheduler's flow_shift      "trailing" timesteps; an Euler step is its DDIM step
"""
from __future__ import annotations

import gc
import hashlib
import json
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn

from motionlab.diffusion import (SAMPLERS, SigmaWrapper, VPredictionWrapper, cfg, gaussian, interpolate, time_grid,
                                 v_from_velocity, velocity)
from motionlab.core.errors import MotionLabError, one_of
from motionlab.core.files import save_weights
from motionlab.models.size import FULL_SIZE, WAN_TEXT_TOKENS

PIPELINES = {"WanPipeline": "wan", "CogVideoXPipeline": "cogvideox"}
STRIDE, PATCH = 8, 2             # pixels per latent, latents per token: the same in all of them
DTYPES = ("torch.bfloat16", "torch.float32")
WAN_FRAMES = 81                  # what Wan 2.1 was made for; no config of its snapshot says so
FLOW_SHIFT = 3.0                 # Wan's at 480p, for a snapshot without a scheduler; 5 at 720p
GUIDANCE = {"wan": 4.0, "cogvideox": 5.0}      # the pipelines' guidance_scale 5 and 6 are 1 + w
AGAIN = "Fetch the file again and compare its size with the original's."


@dataclass(frozen=True)
class LatentSize:
    """Of the clips to work on: channels, height and width of a latent, and the number of latent frames."""

    channels: int
    height: int
    width: int
    max_frames: int


# --- loading

def load_pretrained(folder: str | Path, device: str = "cpu", dtype: torch.dtype = torch.bfloat16,
                    cache: str | Path | None = None, clip: tuple[int, int, int] | None = None) -> Pretrained:
    """A snapshot, ready for inference. The text encoder is read when the first prompt needs it.

    Args:
        folder: holds model_index.json, transformer/, scheduler/, and as far as they are needed vae/, text_encoder/ and
            tokenizer/.
        dtype: bfloat16 or float32, of transformer and text encoder. Wan's VAE always computes in float32.
        cache: a folder where text states are kept between runs.
        clip: (frames, height, width) in pixels of `backbone.config`; by default what the snapshot was made for.

    Raises:
        MotionLabError: no such folder, not a supported pipeline, files missing or truncated, a bad clip size.
    """
    folder, kind = Path(folder), snapshot_kind(Path(folder))
    one_of(str(dtype), DTYPES, "dtype of a pretrained model:")
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise MotionLabError(f"There is no CUDA device for '{device}'.",
                             fix="Use device='cpu', or see `motionlab doctor`.")
    scheduler = _json(folder / "scheduler" / "scheduler_config.json") if (folder / "scheduler").is_dir() else {}
    transformer = _load(folder, _TRANSFORMERS[kind], "transformer", dtype)
    _check_transformer(transformer.config, folder)
    build = {"wan": WanBackbone, "cogvideox": CogVideoXBackbone}[kind]
    prompts = Prompts(folder, kind, *build.text_shape(transformer.config), device, dtype, cache)
    backbone = build(transformer, prompts, scheduler, folder).to(device).eval()
    return Pretrained(folder, kind, backbone, _codec(folder, kind, device, dtype), clip)


def _codec(folder, kind, device, dtype):
    if not (folder / "vae").is_dir():
        return None
    vae = _load(folder, _VAES[kind], "vae", torch.float32 if kind == "wan" else dtype)
    return PretrainedCodec(vae, kind).to(device).eval()


_TRANSFORMERS = {"wan": "WanTransformer3DModel", "cogvideox": "CogVideoXTransformer3DModel"}
_VAES = {"wan": "AutoencoderKLWan", "cogvideox": "AutoencoderKLCogVideoX"}
_ENCODERS = {"wan": "UMT5EncoderModel", "cogvideox": "T5EncoderModel"}


def snapshot_kind(folder: Path) -> str:
    """"wan" or "cogvideox", by the files of a snapshot; loads nothing.

    Raises:
        MotionLabError: no such folder, not a supported pipeline, no transformer.
    """
    if not folder.is_dir():
        raise MotionLabError(f"There is no folder '{folder}'.",
                             fix="Give the folder of a diffusers snapshot on this machine; the kit downloads none.")
    if not (folder / "model_index.json").is_file():
        raise MotionLabError(f"'{folder}' holds no model_index.json, so it is no snapshot of a diffusers pipeline.",
                             fix="Give the folder that `save_pretrained` wrote, or that a snapshot download filled.")
    index = _json(folder / "model_index.json")
    kind = PIPELINES[one_of(index.get("_class_name"), PIPELINES, f"pipeline in {folder / 'model_index.json'}:")]
    if index.get("boundary_ratio") is not None or index.get("expand_timesteps"):
        raise MotionLabError(f"'{folder}' is Wan 2.2, which this kit does not run.", fix="Use Wan 2.1 (text to video).")
    if not (folder / "transformer").is_dir():
        found = sorted(path.name for path in folder.iterdir() if path.is_dir())
        raise MotionLabError(f"'{folder}' has {', '.join(found) or 'no components'}, but no transformer.",
                             fix="Fetch the snapshot's folder transformer/ too.")
    return kind


def _check_transformer(config, folder):
    patch = config.patch_size if isinstance(config.patch_size, int) else tuple(config.patch_size)
    if config.get("patch_size_t") or config.get("ofs_embed_dim") or patch not in (PATCH, (1, PATCH, PATCH)):
        raise MotionLabError(f"The transformer in '{folder}' has patches of another form (CogVideoX 1.5?).",
                             fix="Use Wan 2.1, CogVideoX-2b or CogVideoX-5b.")
    if config.in_channels != config.out_channels or config.get("image_dim"):
        raise MotionLabError(f"The transformer in '{folder}' reads {config.in_channels} channels and writes "
                             f"{config.out_channels}: an image-to-video model.", fix="Use a text-to-video snapshot.")


def _load(folder, name, component, dtype):
    """The diffusers or transformers model `name` from folder/component, complete, in eval mode."""
    _check_files(folder / component)
    import diffusers
    import transformers

    library, word = (transformers, "dtype") if component == "text_encoder" else (diffusers, "torch_dtype")
    try:
        model, info = getattr(library, name).from_pretrained(
            str(folder / component), local_files_only=True, use_safetensors=True, output_loading_info=True,
            **{word: dtype})
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        raise MotionLabError(f"'{folder / component}' does not load as {name} ({error}).", fix=AGAIN) from None
    missing = sorted(info["missing_keys"])
    if component == "text_encoder":
        missing = _tie(model, missing)
    if missing:
        raise MotionLabError(f"'{folder / component}' lacks the weights of {len(missing)} tensors, the first is "
                             f"'{missing[0]}'.", fix=AGAIN)
    return model.eval()


def _tie(encoder, missing):
    """T5's words are stored once and used as two; some versions of transformers 5 leave the second at zero."""
    here, there = "shared.weight", "encoder.embed_tokens.weight"
    if here in missing and there not in missing:
        encoder.shared.weight = encoder.encoder.embed_tokens.weight
    elif here not in missing:
        encoder.encoder.embed_tokens.weight = encoder.shared.weight
    else:
        return missing
    return [name for name in missing if name not in (here, there)]


def _check_files(folder):
    """Every weight file that a component needs is here and whole; only headers are read."""
    from safetensors import SafetensorError, safe_open

    if not (folder / "config.json").is_file():
        raise MotionLabError(f"'{folder}' holds no config.json.", fix="Fetch the whole folder again.")
    indices = [_json(path).get("weight_map", {}) for path in folder.glob("*.safetensors.index.json")]
    gone = sorted({name for index in indices for name in index.values() if not (folder / name).is_file()})
    if gone:
        raise MotionLabError(f"'{folder}' lacks {', '.join(gone)}.", fix="Fetch the missing files.")
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise MotionLabError(f"'{folder}' holds no safetensors weights.",
                             fix="Fetch them; .bin files are pickled, and the kit reads none.")
    for path in files:
        try:
            with safe_open(str(path), "pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise MotionLabError(f"'{path}' is truncated or no safetensors file ({error}).", fix=AGAIN) from None


def _json(path):
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise MotionLabError(f"'{path}' cannot be read ({error}).", fix="Fetch the file again.") from None


# --- text

class Prompts:
    """Text states of prompts, each worked out alone and once; stands where the small backbone has its `Grammar`.

    Tokens are (b, 1) int64, a number per prompt that is the same in every run. States stay on the CPU until they are
    asked for, and in the folder `cache` between runs: with it, a machine without the text encoder can use them.
    """

    def __init__(self, folder: Path, kind: str, length: int, width: int, device, dtype, cache=None):
        self.folder, self.kind, self.length, self.width = folder, kind, length, width
        self.device, self.dtype = device, dtype
        self.cache = None if cache is None else Path(cache)
        self.known: dict[int, torch.Tensor] = {}
        self._encoder = self._tokenizer = None
        self._snapshot, self._text = component_fingerprint(folder / "transformer"), component_fingerprint(folder / "text_encoder")

    def encode(self, texts: str | Sequence[str]) -> torch.Tensor:
        """Tokens (b, 1) of prompts; their states are worked out here, so that a training needs no text encoder later.

        Raises:
            MotionLabError: the snapshot's text encoder or tokenizer is missing and the cache does not know the prompt.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        for text in texts:
            if _number(text) not in self.known:
                self.known[_number(text)] = self._cached(text)
        return torch.tensor([[_number(text)] for text in texts], dtype=torch.int64).reshape(-1, 1)

    def null(self, b: int) -> torch.Tensor:
        """Tokens (b, 1) of the empty prompt."""
        return self.encode("").expand(b, 1)

    def states(self, tokens: torch.Tensor) -> torch.Tensor:
        """States (b, n, d) of tokens (b, 1), on the model's device.

        Raises:
            MotionLabError: a prompt that was not encoded in this run.
        """
        unknown = [i for i in tokens.flatten().tolist() if i not in self.known]
        if unknown or tokens.dim() != 2 or tokens.shape[1] != 1:
            raise MotionLabError(f"Tokens {tuple(tokens.shape)} stand for {len(unknown)} prompts that were not "
                                 "encoded.", fix="Call `grammar.encode(prompts)` of this backbone first.")
        return torch.stack([self.known[i] for i in tokens.flatten().tolist()]).to(self.device)

    def forget(self) -> None:
        """Free the text encoder; states that are known stay."""
        self._encoder = self._tokenizer = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _cached(self, text):
        """States (n, d) from the cache or the encoder. Files of another snapshot, encoder or dtype are not ours."""
        from safetensors import SafetensorError, safe_open

        if self.cache is None:
            return self._work_out(text)
        path = self.cache / f"{self._snapshot}-{self.length}-{str(self.dtype)[6:]}-{_number(text):016x}.safetensors"
        try:
            with safe_open(str(path), "pt") as file:
                about = file.metadata() or {}
                if about.get("prompt") == text and self._text in ("", about.get("text_encoder")):
                    return file.get_tensor("states")
        except (SafetensorError, OSError):         # not there, or a broken file, which is written again
            pass
        states = self._work_out(text)
        save_weights(path, {"states": states.contiguous()}, {"prompt": text, "text_encoder": self._text})
        return states

    @torch.no_grad()
    def _work_out(self, text):
        encoder, tokenizer = self._open(text)
        if self.kind == "wan":
            from diffusers.pipelines.wan.pipeline_wan import prompt_clean

            text = prompt_clean(text)
        words = len(tokenizer(text).input_ids)
        if words > self.length:
            warnings.warn(f"A prompt of {words} tokens was cut to {self.length}: '{text[:60]}...'", stacklevel=4)
        batch = tokenizer([text], padding="max_length", max_length=self.length, truncation=True,
                          add_special_tokens=True, return_attention_mask=True, return_tensors="pt").to(self.device)
        if self.kind == "cogvideox":               # no mask: the states of the padding are part of its text
            return encoder(batch.input_ids)[0][0].to(self.dtype).cpu()
        states = encoder(batch.input_ids, batch.attention_mask).last_hidden_state[0].to(self.dtype)
        return (states * batch.attention_mask[0, :, None].to(states)).cpu()

    def _open(self, text):
        if self._encoder is None:
            gone = [name for name in ("text_encoder", "tokenizer") if not (self.folder / name).is_dir()]
            if gone:
                raise MotionLabError(f"'{self.folder}' has no {' and no '.join(gone)}, and the states of "
                                     f"'{text[:60]}' are in no cache.",
                                     fix="Fetch the missing folders, give the `cache` of a machine that has them, "
                                         "or pass text states (b, n, d) to `bind`.")
            self._tokenizer = _tokenizer(self.folder / "tokenizer")
            self._encoder = _load(self.folder, _ENCODERS[self.kind], "text_encoder", self.dtype)
            self._encoder.requires_grad_(False).to(self.device)
        return self._encoder, self._tokenizer


def _tokenizer(folder):
    from transformers import AutoTokenizer
    from transformers.utils import is_sentencepiece_available

    if not (folder / "tokenizer.json").is_file() and not is_sentencepiece_available():
        raise MotionLabError(f"'{folder}' holds its words as spiece.model only, which the package sentencepiece reads.",
                             fix="pip install sentencepiece")
    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise MotionLabError(f"The tokenizer in '{folder}' cannot be read ({error}).",
                             fix="Fetch the folder again.") from None


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def component_fingerprint(folder: Path) -> str:
    """Names a component's weights by its config, and by size, start and end of its files; "" when it is not there."""
    if not folder.is_dir():
        return ""
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.json"), *folder.glob("*.safetensors")]):
        digest.update(f"{path.name} {path.stat().st_size}".encode())
        with open(path, "rb") as file:
            digest.update(file.read(2 ** 16))
            file.seek(max(0, path.stat().st_size - 2 ** 16))
            digest.update(file.read())
    return digest.hexdigest()[:12]


# --- the transformer

class PretrainedBackbone(nn.Module):
    """Noisy latents, time and text -> velocity; called as the small `Backbone` is.

    Attributes: `transformer` (the diffusers model), `grammar` (`Prompts`), `config` (`LatentSize`).
    """

    def __init__(self, transformer: nn.Module, prompts: Prompts, scheduler: dict, folder: Path):
        super().__init__()
        self.transformer, self.grammar = transformer, prompts
        self.config: LatentSize | None = None
        self.border = self._border(scheduler, folder)

    def forward(self, x_t: torch.Tensor, t: torch.Tensor, tokens: torch.Tensor, cond=None, cond_mask=None,
                extra: torch.Tensor | None = None) -> torch.Tensor:
        """The velocity u (b, f, c, h, w) float32 at x_t (b, f, c, h, w), t (b,) in [0, 1].

        Args:
            tokens: (b, 1) of `grammar.encode`, or text states (b, n, d).
            extra: further channels (b, f, n, h, w) behind these, for a transformer whose projections were widened.

        Raises:
            MotionLabError: shapes that do not fit; known frames, which these models do not take.
        """
        if cond is not None or cond_mask is not None:
            raise MotionLabError("A text-to-video model takes no known frames.", fix="Use mode='text', without cond.")
        x = x_t if extra is None else torch.cat([x_t, extra.to(x_t)], 2)
        text = self.text(tokens).to(x.device)
        self._check(x, text)
        return self.border(lambda z, timestep: self.native(z, timestep, text).float())(x.float(), t)

    def text(self, tokens: torch.Tensor) -> torch.Tensor:
        """States (b, n, d) of tokens (b, 1); states are passed through."""
        return tokens if tokens.is_floating_point() else self.grammar.states(tokens)

    def native(self, x: torch.Tensor, timestep: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """The transformer's own prediction, in its own type, at its own state x (b, f, c, h, w) and timestep (b,)."""
        raise NotImplementedError

    @property
    def dtype(self) -> torch.dtype:
        """What the transformer computes in, as it is now."""
        return self.transformer.dtype

    def _check(self, x, text):
        channels = self.transformer.config.in_channels
        if x.dim() != 5 or x.shape[2] != channels or x.shape[3] % PATCH or x.shape[4] % PATCH:
            raise MotionLabError(f"Latents of shape {tuple(x.shape)} were given.",
                                 fix=f"This model reads (b, f, {channels}, h, w) with even h and w.")
        wanted = (len(x), *self.text_shape(self.transformer.config))
        if tuple(text.shape) != wanted:
            raise MotionLabError(f"{len(x)} clips came with text states of shape {tuple(text.shape)}.",
                                 fix=f"Give one row per clip, {wanted}, as `embed` does.")


class WanBackbone(PretrainedBackbone):
    """Wan 2.1: a flow from data to noise over sigma = 1 - t."""

    @staticmethod
    def text_shape(config) -> tuple[int, int]:
        """Number and width of text states."""
        return WAN_TEXT_TOKENS, config.text_dim

    def native(self, x, timestep, text):
        out = self.transformer(x.transpose(1, 2).to(self.dtype), timestep, text.to(self.dtype), return_dict=False)[0]
        return out.transpose(1, 2)

    def _border(self, scheduler, folder):
        kind = scheduler.get("prediction_type", "flow_prediction")
        one_of(kind, ["flow_prediction"], f"prediction type in {folder}:")
        self.flow_shift = float(scheduler.get("flow_shift") or scheduler.get("shift") or FLOW_SHIFT)
        return SigmaWrapper

    def grid(self, steps: int) -> torch.Tensor:
        """The snapshot's own steps in our time, (steps + 1,)."""
        return time_grid(steps, self.flow_shift)

    def times(self, noise) -> torch.Tensor:
        """Training's t (b,): logit-normal, moved to the noisy side by the scheduler's shift; noise: `SampleNoise`."""
        return torch.sigmoid(noise.randn() - math.log(self.flow_shift))

    def state(self, x_t, t):
        """Our x_t as the network takes it: the same."""
        return x_t

    def target(self, x0, x1, t):
        """noise - data."""
        return x0 - x1

    def made_for(self) -> tuple[int, int, int]:
        """(frames, height, width) in pixels."""
        return WAN_FRAMES, FULL_SIZE["wan-1.3b"].height, FULL_SIZE["wan-1.3b"].width


class CogVideoXBackbone(PretrainedBackbone):
    """CogVideoX: variance preserving v prediction. 2B has sin-cos positions, 5B rotary ones, worked out here."""

    @staticmethod
    def text_shape(config) -> tuple[int, int]:
        """Number and width of text states."""
        return config.max_text_seq_length, config.text_embed_dim

    def native(self, x, timestep, text):
        rotary = self._rotary(*x.shape[1:2], *x.shape[3:], x.device)
        return self.transformer(x.to(self.dtype), text.to(self.dtype), timestep, image_rotary_emb=rotary,
                                return_dict=False)[0]

    def _rotary(self, f, h, w, device):
        """cos and sin per video token, as `CogVideoXPipeline._prepare_rotary_positional_embeddings`; 2B: None."""
        c = self.transformer.config
        if not c.use_rotary_positional_embeddings:
            return None
        if (f, h, w, device) not in self._rotaries:
            from diffusers.models.embeddings import get_3d_rotary_pos_embed
            from diffusers.pipelines.cogvideo.pipeline_cogvideox import get_resize_crop_region_for_grid

            size = (h // PATCH, w // PATCH)
            crop = get_resize_crop_region_for_grid(size, c.sample_width // PATCH, c.sample_height // PATCH)
            self._rotaries[f, h, w, device] = get_3d_rotary_pos_embed(
                c.attention_head_dim, crops_coords=crop, grid_size=size, temporal_size=f, device=device)
        return self._rotaries[f, h, w, device]

    def _border(self, scheduler, folder):
        if not scheduler:
            raise MotionLabError(f"'{folder}' has no scheduler, which holds the noise levels of its timesteps.",
                                 fix="Fetch the snapshot's folder scheduler/ too (it is one small file).")
        one_of(scheduler.get("prediction_type", "epsilon"), ["v_prediction"], f"prediction type in {folder}:")
        from diffusers import CogVideoXDDIMScheduler

        self._rotaries, self.steps = {}, int(scheduler.get("num_train_timesteps", 1000))
        alphas = CogVideoXDDIMScheduler.from_config(scheduler).alphas_cumprod
        return partial(VPredictionWrapper, alphas_cumprod=alphas)

    def grid(self, steps: int) -> torch.Tensor:
        """The "trailing" timesteps that its authors advise, in our time, then 1: (steps + 1,)."""
        time_grid(steps)                                   # the same demands on `steps`
        timesteps = torch.arange(self.steps, 0, -self.steps / steps, dtype=torch.float64)[:steps].round() - 1
        grid = torch.cat([self.border(None).time(timesteps), torch.ones(1, dtype=torch.float64)])
        grid[0] = 0.0
        return grid

    def times(self, noise) -> torch.Tensor:
        """Training's t (b,): of timesteps drawn uniformly; noise: `SampleNoise`."""
        return self.border(None).time(self.steps * noise.rand().cpu()).float().to(noise.device)

    def state(self, x_t, t):
        """Our x_t scaled to variance one, at equal log-SNR."""
        t = _along(t, x_t)
        return x_t * (t ** 2 + (1 - t) ** 2).rsqrt()

    def target(self, x0, x1, t):
        """v = alpha noise - sigma data."""
        return v_from_velocity(velocity(x0, x1), interpolate(x0, x1, t), t)

    def made_for(self) -> tuple[int, int, int]:
        """(frames, height, width) in pixels."""
        c = self.transformer.config
        return c.sample_frames, STRIDE * c.sample_height, STRIDE * c.sample_width


# --- the autoencoder

class PretrainedCodec(nn.Module):
    """Video (b, f, 3, h, w) in [-1, 1] <-> latents (b, 1 + (f-1)/4, c, h/8, w/8) float32, scaled as the pipeline does.

    Encoding takes the mode of the distribution: no random numbers. Clips go through one by one, so that a batch needs
    the memory of one clip; where that is still too much, `codec.vae.enable_tiling()` works in overlapping tiles.
    It computes in its own type, whatever autocast says: Wan's VAE is meant for float32.
    """

    def __init__(self, vae: nn.Module, kind: str):
        super().__init__()
        self.vae, self.kind = vae.requires_grad_(False), kind
        c = vae.config
        self.channels = c.z_dim if kind == "wan" else c.latent_channels
        mean, std = (c.latents_mean, c.latents_std) if kind == "wan" else ([0.0], [1 / c.scaling_factor])
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1, 1), persistent=False)

    def latent_frames(self, frames: int) -> int:
        """Number of latent frames of a clip.

        Raises:
            MotionLabError: a length that the model does not do.
        """
        return latent_size(self.kind, self.channels, frames, STRIDE * PATCH, STRIDE * PATCH).max_frames

    def encode(self, video: torch.Tensor) -> torch.Tensor:
        """Latents of video.

        Raises:
            MotionLabError: wrong shape, a length or size that the model does not do.
        """
        if video.dim() != 5 or video.shape[2] != 3:
            raise MotionLabError(f"The codec takes video (b, f, 3, h, w); got shape {tuple(video.shape)}.",
                                 fix="Clip.video()[None] has this shape.")
        latent_size(self.kind, self.channels, video.shape[1], *video.shape[3:])
        clips = video.to(self.mean.device, self.vae.dtype).transpose(1, 2)
        with torch.autocast(self.mean.device.type, enabled=False):
            z = torch.cat([self.vae.encode(clip[None]).latent_dist.mode() for clip in clips])
        return ((z.float() - self.mean) / self.std).transpose(1, 2)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Video of latents; values near [-1, 1].

        Raises:
            MotionLabError: latents with another number of channels, or of a length that the model does not do.
        """
        if latents.dim() != 5 or latents.shape[2] != self.channels:
            raise MotionLabError(f"This codec decodes latents (b, f, {self.channels}, h, w); "
                                 f"got {tuple(latents.shape)}.", fix="Use the codec that the latents were made with.")
        self.latent_frames(4 * latents.shape[1] - 3)
        z = (latents.to(self.mean).transpose(1, 2) * self.std + self.mean).to(self.vae.dtype)
        with torch.autocast(self.mean.device.type, enabled=False):
            return torch.cat([self.vae.decode(one[None]).sample for one in z]).transpose(1, 2).float()


def latent_size(kind: str, channels: int, frames: int, height: int, width: int) -> LatentSize:
    """Size of the latents of a clip of frames of height x width pixels.

    Raises:
        MotionLabError: a length that is not 1 + 4k (CogVideoX: 1 + 8k), a size that does not divide into tokens.
    """
    step, unit = {"wan": 4, "cogvideox": 8}[kind], STRIDE * PATCH
    if frames < 1 or (frames - 1) % step:
        below = max(1, frames - (frames - 1) % step)
        raise MotionLabError(f"A clip of {frames} frames does not fit {kind}: lengths are 1 + {step}k.",
                             fix=f"Use {below} or {below + step} frames.")
    if min(height, width) < 1 or height % unit or width % unit:
        raise MotionLabError(f"Frames of {height}x{width} do not divide into patches of {unit} pixels.",
                             fix=f"Resize or crop to multiples of {unit}.")
    return LatentSize(channels, height // STRIDE, width // STRIDE, 1 + (frames - 1) // 4)


# --- all together

@dataclass(frozen=True)
class TrainingParts:
    """What a fine-tune in the network's own convention needs; every x is (b, f, c, h, w), t (b,) our time.

        x_t = parts.state(interpolate(x0, x1, t), t)
        loss = (parts.forward(x_t, text, t).float() - parts.target(x0, x1, t)).square().mean()

    CogVideoX is trained by v prediction at equal log-SNR. Its loss and the velocity's differ by a factor between 1 and
    2 that depends on t only, |u - u*|^2 = (alpha + sigma)^2 |v - v*|^2, so `backbone` may as well be trained by
    velocity; for Wan the two are the same. `pretrained.transformer.enable_gradient_checkpointing()` works as always.
    """

    forward: Callable
    state: Callable
    target: Callable


class Pretrained:
    """A snapshot: `kind`, `backbone`, `codec` (None without a VAE), `transformer` (for taps, widening), `channels`."""

    def __init__(self, folder: Path, kind: str, backbone: PretrainedBackbone, codec: PretrainedCodec | None,
                 clip: tuple[int, int, int] | None = None):
        self.folder, self.kind, self.backbone, self.codec = folder, kind, backbone, codec
        self.channels = backbone.transformer.config.in_channels
        backbone.config = latent_size(kind, self.channels, *(clip or self.size()))
        if codec is not None and codec.channels != self.channels:
            raise MotionLabError(f"'{folder}': the VAE has latents of {codec.channels} channels, the transformer reads "
                                 f"{self.channels}.", fix="Fetch both from the same snapshot.")

    @property
    def transformer(self) -> nn.Module:
        """The diffusers model."""
        return self.backbone.transformer

    def size(self) -> tuple[int, int, int]:
        """(frames, height, width) in pixels that the snapshot was made for."""
        return self.backbone.made_for()

    # ------------------------------------------------------------------ video and text
    def encode(self, video: torch.Tensor) -> torch.Tensor:
        """Latents of video; see `PretrainedCodec.encode`."""
        return self._codec().encode(video)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Video of latents; see `PretrainedCodec.decode`."""
        return self._codec().decode(latents)

    def _codec(self):
        if self.codec is None:
            raise MotionLabError(f"'{self.folder}' has no vae.", fix="Fetch the snapshot's folder vae/ too.")
        return self.codec

    def embed(self, prompts: str | Sequence[str]) -> torch.Tensor:
        """Text states (b, n, d) of prompts; errors as `Prompts.encode`."""
        return self.backbone.text(self.backbone.grammar.encode(prompts))

    def forget_text(self) -> None:
        """Free the text encoder; prompts that are known stay."""
        self.backbone.grammar.forget()

    # ------------------------------------------------------------------ models (x, t) -> u
    def bind(self, text) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        """The model u(x, t) of prompts, tokens (b, 1) or text states (b, n, d); a single one serves every clip."""
        states = self._states(text)
        return lambda x, t: self.backbone(x, t, _rows(states, len(x)))

    def guided(self, text, w: float | None = None, negative="") -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        """As `bind`, with text guidance `diffusion.cfg`, both halves in one batch; w = 0 is `bind`, in one pass.

        Args:
            w: the pipeline's guidance_scale less 1; by default its own (Wan 4, CogVideoX 5).
            negative: what to guide away from, a prompt or states; the pipelines' default is the empty prompt.
        """
        w, states = GUIDANCE[self.kind] if w is None else w, self._states(text)
        if w == 0:
            return self.bind(states)
        null = self._states(negative)

        def u(x, t):
            t = torch.as_tensor(t, device=x.device).expand(len(x))
            both = torch.cat([_rows(states, len(x)), _rows(null, len(x))])
            return cfg(*self.backbone(torch.cat([x, x]), torch.cat([t, t]), both).chunk(2), w)

        return u

    def _states(self, text):
        return self.backbone.text(text).to(self.device) if torch.is_tensor(text) else self.embed(text)

    @property
    def device(self) -> torch.device:
        """Where the transformer is."""
        return next(self.transformer.parameters()).device

    # ------------------------------------------------------------------ sampling
    def grid(self, steps: int, shift: float | None = None) -> torch.Tensor:
        """Times (steps + 1,) of a sampler: the snapshot's own, or with `shift` the kit's `time_grid`."""
        return self.backbone.grid(steps) if shift is None else time_grid(steps, shift)

    @torch.no_grad()
    def sample(self, prompts, frames: int, height: int, width: int, generator: torch.Generator, steps: int = 50,
               w: float | None = None, solver: str = "euler", shift: float | None = None, negative="",
               callback: Callable | None = None) -> torch.Tensor:
        """Video (b, frames, 3, height, width) in [-1, 1] float32 on the CPU, by the kit's samplers.

        Args:
            prompts: or tokens (b, 1), or text states (b, n, d). generator: of the starting noise, on the CPU.
            steps, shift: see `grid`. w, negative: see `guided`. callback: of every step, see `diffusion.euler`.

        Raises:
            MotionLabError: a clip size that the model does not do, an unknown solver, no VAE or no text encoder.
        """
        size, codec = latent_size(self.kind, self.channels, frames, height, width), self._codec()
        solve, grid = SAMPLERS[one_of(solver, SAMPLERS, "solver")], self.grid(steps, shift)
        states = self._states(prompts)
        x0 = gaussian((len(states), size.max_frames, size.channels, size.height, size.width), generator, self.device)
        return codec.decode(solve(self.guided(states, w, negative), x0, grid, callback)).clamp(-1, 1).cpu()

    # ------------------------------------------------------------------ training
    def training_parts(self) -> TrainingParts:
        """The bare transformer and its target, in its own convention."""
        backbone = self.backbone

        def forward(x_t, text, t):
            timestep = backbone.border(None).timestep(torch.as_tensor(t).to(x_t.device))
            return backbone.native(x_t, timestep.float(), backbone.text(text).to(x_t.device))

        return TrainingParts(forward, backbone.state, backbone.target)


def _rows(states, n):
    """A single row serves every clip."""
    return states.expand(n, -1, -1) if len(states) == 1 else states


def _along(t, x):
    return torch.as_tensor(t).to(x).reshape(-1, *[1] * (x.dim() - 1))
