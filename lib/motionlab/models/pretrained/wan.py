"""Wan 2.1 as a `Pipe`: text to video, first frame, and first and last frame.

Latents are (z - mean) / std per channel; text is 512 states, zero behind the last word; the network is a flow with
timestep 1000 (1 - t). An image network reads, beside the latents, four channels that say which frames are known, and the
clip with grey in all other frames through the autoencoder; where it has `image_dim`, CLIP's view of the pictures too.
"""
from __future__ import annotations

import math

import torch

from motionlab.core.errors import MotionLabError
from motionlab.diffusion import time_grid
from motionlab.models.frame_text import TokenText
from motionlab.models.pretrained.base import SnapshotPipe
from motionlab.models.pretrained.borders import flow_border
from motionlab.models.pretrained.pictures import as_pictures

FRAMES, HEIGHT, WIDTH = 81, 480, 832        # what Wan 2.1 was made for; no config of its snapshot says so
TEXT = 512                                  # its pipeline pads text to so many states; no config says so either
FLOW_SHIFT = 3.0                            # at 480p, where a scheduler says none; 5 at 720p


class WanPipe(SnapshotPipe):
    """Text to video; text is {"states": (b, 512, d)}, or each latent frame's own, (b, f, 512, d)."""

    text_per_frame = True

    kind, pipeline_class, w, fps, text_length, vae_dtype, blocks = "wan", "WanPipeline", 4.0, 16.0, TEXT, torch.float32, ("blocks",)

    def latent_channels(self):
        return self.pipeline.vae.config.z_dim

    def make_border(self):
        return flow_border(self.pipeline.scheduler, str(self.folder))

    def made_for(self):
        return FRAMES, HEIGHT, WIDTH

    @property
    def shift(self) -> float:
        """How far its scheduler moves times to the noisy side."""
        config = self.pipeline.scheduler.config
        return float(config.get("flow_shift") or config.get("shift") or FLOW_SHIFT)

    @property
    def scale(self):
        c = self.pipeline.vae.config
        return tuple(torch.tensor(v, device=self.device).view(1, 1, -1, 1, 1) for v in (c.latents_mean, c.latents_std))

    def encode_prompt(self, prompt):
        states, _ = self.pipeline.encode_prompt([prompt], do_classifier_free_guidance=False, max_sequence_length=TEXT, device=self.device)
        return {"states": states[0].to(self.dtype)}

    def native(self, z, timestep, text, known):
        if "condition" in known:
            z = self.beside(z, known["condition"])
        seen = known["seen"].flatten(0, 1).to(self.denoiser.dtype) if "seen" in known else None
        states = text["states"].to(self.denoiser.dtype)
        self._own_texts(states)
        try:
            return self.denoiser(z.transpose(1, 2).to(self.denoiser.dtype), timestep, states[:, 0] if states.dim() == 4 else states,
                                 encoder_hidden_states_image=seen, return_dict=False)[0].transpose(1, 2)
        finally:
            self._own_texts(None)

    def _own_texts(self, states):
        """Let each latent frame of the next call read its own text, states (b, f, n, d); None or (b, n, d): one for all."""
        if states is not None and states.dim() == 4:
            if "token_text" not in self.__dict__:
                self.__dict__["token_text"] = TokenText(self.denoiser)
            embed = self.denoiser.condition_embedder.text_embedder
            self.token_text.states = embed(states.flatten(0, 1)).unflatten(0, states.shape[:2])
        elif "token_text" in self.__dict__:
            self.token_text.states = None

    def grid(self, steps=None):
        return time_grid(steps or self.steps, self.shift)         # its scheduler's timesteps are rounded, its sigmas are not

    def times(self, noise):
        return torch.sigmoid(noise.randn() - math.log(self.shift))

    def example(self, b):
        return {"states": torch.zeros(b, TEXT, self.denoiser.config.text_dim)}, {}


class WanImagePipe(WanPipe):
    """First frame, or first and last; known is {"condition": (b, f, 4 + c, h, w)} and, with CLIP, {"seen": (b, pictures, tokens, d)}.

    Which of them a network was trained for, its positions for pictures say: none for one picture, some for two.
    """

    pipeline_class, modes, small_parts = "WanImageToVideoPipeline", ("first", "first_last"), ("image_encoder", "image_processor")

    def check(self):
        read, c = self.denoiser.config.in_channels, self.channels
        if read != 2 * c + self.group:
            raise MotionLabError(f"'{self.folder}' reads {read} channels, not the {2 * c + self.group} of Wan's image to video.",
                                 fix="Fetch all parts of the snapshot from the same place.")
        config = self.denoiser.config
        self.modes = ("first", "first_last") if config.image_dim is None else ("first_last",) if config.pos_embed_seq_len else ("first",)
        if config.image_dim is not None:
            self.demand(self.small_parts)

    def draw(self, generators, first=None, last=None):
        noise, condition = self._prepared(first, last, list(generators))
        return self.unpacked(noise), self._seen(first, last) | {"condition": condition}

    def known(self, first=None, last=None):
        if first is None:
            return {}
        return self._seen(first, last) | {"condition": self._prepared(first, last, [torch.Generator()] * len(first))[1]}

    def _prepared(self, first, last, generators):
        """Noise and condition of each clip; the pipeline takes one picture at a time."""
        pair = lambda k, picture: None if picture is None else picture[k:k + 1].to(self.device, torch.float32)
        made = [self.pipeline.prepare_latents(image=pair(k, first), last_image=pair(k, last), **self.latents_of([g]))
                for k, g in enumerate(generators)]
        noise, condition = (torch.cat(parts) for parts in zip(*made))
        return noise, condition.transpose(1, 2).float()

    @torch.no_grad()
    def _seen(self, first, last):
        if self.denoiser.config.image_dim is None:
            return {}
        groups = [[picture] if last is None else [picture, last[k]] for k, picture in enumerate(first)]
        return {"seen": torch.stack([self.pipeline.encode_image(as_pictures(torch.stack(group)), self.device) for group in groups])}

    def example(self, b):
        text, _ = super().example(b)
        f, _, h, w = self.shape
        known, c = {"condition": torch.zeros(b, f, self.group + self.channels, h, w)}, self.denoiser.config
        if c.image_dim is not None:
            pictures = 2 if c.pos_embed_seq_len else 1
            known["seen"] = torch.zeros(b, pictures, (c.pos_embed_seq_len or 2 * 257) // 2, c.image_dim)
        return text, known
