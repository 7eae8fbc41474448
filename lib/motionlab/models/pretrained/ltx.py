"""LTX-Video as a `Pipe`: text to video. Its network reads a list of tokens; 32 pixels and 8 frames make one."""
from __future__ import annotations

import torch

from motionlab.models.pretrained.base import SnapshotPipe
from motionlab.models.pretrained.borders import flow_border

FRAMES, HEIGHT, WIDTH, TEXT = 161, 512, 704, 128       # defaults of its pipeline's call


class LTXPipe(SnapshotPipe):
    """Text is {"states": (b, 128, d), "words": (b, 128)}, the latter a mask."""

    kind, pipeline_class, w, fps, clip_step = "ltx", "LTXPipeline", 2.0, 25.0, 8
    text_length = TEXT

    @property
    def stride(self):
        return self.pipeline.vae_spatial_compression_ratio

    @property
    def unit(self):
        return self.stride * self.pipeline.transformer_spatial_patch_size

    @property
    def group(self):
        return self.pipeline.vae_temporal_compression_ratio

    def make_border(self):
        return flow_border(self.pipeline.scheduler, str(self.folder))

    def made_for(self):
        return FRAMES, HEIGHT, WIDTH

    @property
    def scale(self):
        vae, s = self.pipeline.vae, self.pipeline.vae.config.scaling_factor
        return vae.latents_mean.view(1, 1, -1, 1, 1).to(self.device), vae.latents_std.view(1, 1, -1, 1, 1).to(self.device) / s

    def unpacked(self, z):
        """Its pipeline packs even the noise."""
        f, _, h, w = self.shape
        return super().unpacked(self.pipeline._unpack_latents(z, f, h, w, *self._patches))

    @property
    def _patches(self):
        return self.pipeline.transformer_spatial_patch_size, self.pipeline.transformer_temporal_patch_size

    def encode_prompt(self, prompt):
        states, words, _, _ = self.pipeline.encode_prompt([prompt], do_classifier_free_guidance=False, max_sequence_length=TEXT,
                                                          device=self.device)
        return {"states": states[0].to(self.dtype), "words": words[0]}

    def native(self, z, timestep, text, known):
        f, h, w = z.shape[1], *z.shape[3:]
        tokens = self.pipeline._pack_latents(z.transpose(1, 2), *self._patches).to(self.denoiser.dtype)
        out = self.denoiser(tokens, text["states"].to(self.denoiser.dtype), timestep, text["words"], num_frames=f, height=h, width=w,
                            rope_interpolation_scale=(self.group / self.fps, self.stride, self.stride), return_dict=False)[0]
        return self.pipeline._unpack_latents(out, f, h, w, *self._patches).transpose(1, 2)

    def decode_clip(self, z):
        vae = self.pipeline.vae
        if not vae.config.timestep_conditioning:
            return super().decode_clip(z)
        return vae.decode(z.transpose(1, 2), torch.zeros(1, device=z.device, dtype=z.dtype), return_dict=False)[0].transpose(1, 2)

    @property
    def shift(self) -> float:
        """Its scheduler's, which grows with the number of tokens."""
        from diffusers.pipelines.ltx.pipeline_ltx import calculate_shift

        c, (f, _, h, w) = self.pipeline.scheduler.config, self.shape
        return calculate_shift(f * h * w, c.get("base_image_seq_len", 256), c.get("max_image_seq_len", 4096), c.get("base_shift", 0.5),
                               c.get("max_shift", 1.15))

    def schedule(self, steps):
        sigmas = torch.linspace(1.0, 1 / steps, steps, dtype=torch.float64).numpy()
        more = {"mu": self.shift} if self.pipeline.scheduler.config.get("use_dynamic_shifting") else {}
        self.pipeline.scheduler.set_timesteps(sigmas=sigmas, device=self.device, **more)
        return self.pipeline.scheduler.timesteps

    def times(self, noise):
        return torch.sigmoid(noise.randn() - self.shift)

    def example(self, b):
        return {"states": torch.zeros(b, TEXT, self.denoiser.config.caption_channels), "words": torch.ones(b, TEXT)}, {}
