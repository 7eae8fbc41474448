"""CogVideoX 1.0 and 1.5 as a `Pipe`: text to video and image to video.

Latents are scaling_factor * z; text is the padding's states too; the network predicts v at the timestep of equal log-SNR.
2B has sin-cos positions, 5B rotary ones. 1.5 has patches in time: its latents get further frames in front, which nobody
sees. An image network reads, beside the latents, the first frame's latents with zeros behind them.
"""
from __future__ import annotations

import torch

from motionlab.core.errors import MotionLabError
from motionlab.diffusion import time_grid
from motionlab.models.pretrained.base import SnapshotPipe
from motionlab.models.pretrained.borders import diffusion_border


class CogVideoXPipe(SnapshotPipe):
    """Text to video; text is {"states": (b, n, d)}."""

    kind, pipeline_class, w, fps, clip_step, drawn_in_float32 = "cogvideox", "CogVideoXPipeline", 5.0, 8.0, 8, False

    def check(self):
        super().check()
        self.text_length = self.denoiser.config.max_text_seq_length

    def make_border(self):
        return diffusion_border(self.pipeline.scheduler, str(self.folder))

    def made_for(self):
        c, padded = self.denoiser.config, self.time_patch > 1
        frames = c.sample_frames - (c.sample_frames - 1) % self.clip_step if padded else c.sample_frames
        return frames, self.stride * c.sample_height, self.stride * c.sample_width

    @property
    def time_patch(self) -> int:
        """Latent frames per token."""
        return self.denoiser.config.get("patch_size_t") or 1

    @property
    def extra(self) -> int:
        """Latent frames in front that only fill a patch."""
        return -super().latent_frames(self.frames) % self.time_patch

    def latent_frames(self, frames):
        own = super().latent_frames(frames)
        return own + -own % self.time_patch

    @property
    def frames_drawn(self):
        return self.frames + self.extra * self.group

    def unpacked(self, z):
        return z.float() / float(self.pipeline.scheduler.init_noise_sigma)      # (b, f, c, h, w) already

    def encode_clip(self, clip):
        z = super().encode_clip(clip)
        return torch.cat([z[:, :1]] * (-z.shape[1] % self.time_patch) + [z], 1)

    def decode_clip(self, z):
        extra = 0 if self.time_patch == 1 else (z.shape[1] - 1) % 2              # 1 + 8k frames have an odd number of latents
        if (z.shape[1] - extra) % 2 == 0:
            raise MotionLabError(f"Latents of {z.shape[1]} frames do not fit {self.kind}: clips have 1 + {self.clip_step}k frames.",
                                 fix="Keep an odd number of latent frames.")
        return super().decode_clip(z[:, extra:])

    def encode_prompt(self, prompt):
        states, _ = self.pipeline.encode_prompt([prompt], do_classifier_free_guidance=False, max_sequence_length=self.text_length,
                                                device=self.device)
        return {"states": states[0].to(self.dtype)}

    def native(self, z, timestep, text, known):
        if "pictures" in known:
            z = self.beside(z, known["pictures"])
        f, h, w = z.shape[1], self.stride * z.shape[3], self.stride * z.shape[4]
        c, dtype = self.denoiser.config, self.denoiser.dtype
        rotary = self.pipeline._prepare_rotary_positional_embeddings(h, w, f, z.device) if c.use_rotary_positional_embeddings else None
        ofs = {"ofs": z.new_full((1,), 2.0)} if c.get("ofs_embed_dim") else {}
        return self.denoiser(z.to(dtype), text["states"].to(dtype), timestep, image_rotary_emb=rotary, return_dict=False, **ofs)[0]

    def step(self, out, k, timesteps, z, memory, draws):
        scheduler = self.pipeline.scheduler
        if type(scheduler).__name__ != "CogVideoXDPMScheduler":
            return super().step(out, k, timesteps, z, memory, draws)
        return scheduler.step(out, memory, timesteps[k], timesteps[k - 1] if k else None, z, generator=draws, return_dict=False)

    def grid(self, steps=None):
        """The "trailing" timesteps that its authors advise."""
        steps, n = steps or self.steps, int(self.pipeline.scheduler.config.num_train_timesteps)
        time_grid(steps)                                                         # the same demands on `steps`
        timesteps = torch.arange(n, 0, -n / steps, dtype=torch.float64)[:steps].round() - 1
        grid = torch.cat([self.border.time(timesteps), torch.ones(1, dtype=torch.float64)])
        grid[0] = 0.0
        return grid

    def times(self, noise):
        """Of timesteps drawn uniformly."""
        n = int(self.pipeline.scheduler.config.num_train_timesteps)
        return self.border.time(n * noise.rand().cpu()).float().to(noise.device)

    def example(self, b):
        c = self.denoiser.config
        return {"states": torch.zeros(b, c.max_text_seq_length, c.text_embed_dim)}, {}


class CogVideoXImagePipe(CogVideoXPipe):
    """First frame; known is {"pictures": (b, f, c, h, w)}, drawn from the autoencoder's distribution as the pipeline does."""

    pipeline_class, modes = "CogVideoXImageToVideoPipeline", ("first",)

    def check(self):
        read = self.denoiser.config.in_channels
        if read != 2 * self.channels:
            raise MotionLabError(f"'{self.folder}' reads {read} channels, not the {2 * self.channels} of image to video.",
                                 fix="Fetch all parts of the snapshot from the same place.")
        self.text_length = self.denoiser.config.max_text_seq_length

    def set_clip(self, frames, height, width):
        """Version 1.0 learned its positions: it does the size that it was made for and no other."""
        own = self.made_for()[1:]
        if self.denoiser.config.get("use_learned_positional_embeddings") and (height, width) != own:
            raise MotionLabError(f"'{self.name}' has learned positions for frames of {own[0]}x{own[1]}, not {height}x{width}.",
                                 fix=f"Use height={own[0]} and width={own[1]}.")
        return super().set_clip(frames, height, width)

    @torch.no_grad()
    def draw(self, generators, first=None, last=None):
        noise, pictures = self.pipeline.prepare_latents(image=first.to(self.device, self.dtype), **self.latents_of(generators))
        return self.unpacked(noise), {"pictures": pictures.float()}

    def known(self, first=None, last=None):
        return {} if first is None else self.draw([torch.Generator().manual_seed(0) for _ in first], first)[1]

    def example(self, b):
        return super().example(b)[0], {"pictures": torch.zeros(b, *self.shape)}
