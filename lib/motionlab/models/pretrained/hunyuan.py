"""HunyuanVideo as a `Pipe`: text to video. Guidance was distilled into it: it is a number that the network reads, not a second pass."""
from __future__ import annotations

import math

import torch

from motionlab.models.pretrained.base import SnapshotPipe
from motionlab.models.pretrained.borders import flow_border

FRAMES, HEIGHT, WIDTH, TEXT = 129, 720, 1280, 256      # defaults of its pipeline's call


class HunyuanVideoPipe(SnapshotPipe):
    """Text is {"states": (b, n, d), "words": (b, n) mask, "pooled": (b, e), "strength": (b,)}; the last is 1 + w, times 1000."""

    kind, pipeline_class, w, fps, text_length = "hunyuanvideo", "HunyuanVideoPipeline", 5.0, 24.0, TEXT
    text_parts = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
    blocks = ("transformer_blocks", "single_transformer_blocks")

    def make_border(self):
        return flow_border(self.pipeline.scheduler, str(self.folder))

    def made_for(self):
        return FRAMES, HEIGHT, WIDTH

    def encode_prompt(self, prompt):
        states, pooled, words = self.pipeline.encode_prompt([prompt], max_sequence_length=TEXT, device=self.device)
        return {"states": states[0].to(self.dtype), "words": words[0], "pooled": pooled[0].to(self.dtype)}

    def text(self, prompts):
        found = super().text(prompts)
        return found | {"strength": torch.full((len(found["pooled"]),), 1000 * (1 + self.w), device=self.device)}

    def guided(self, captions, w=None, known=None, extra=None):
        """One pass that is told the strength."""
        text = captions if isinstance(captions, dict) else self.text(captions)
        text = text | {"strength": torch.full_like(text["strength"], 1000 * (1 + (self.w if w is None else w)))}
        return lambda x, t: self.velocity(x, t, text, known, extra)

    def native(self, z, timestep, text, known):
        dtype = self.denoiser.dtype
        guidance = text["strength"].to(dtype) if self.denoiser.config.guidance_embeds else None
        return self.denoiser(z.transpose(1, 2).to(dtype), timestep, text["states"].to(dtype), text["words"].to(dtype),
                             text["pooled"].to(dtype), guidance=guidance, return_dict=False)[0].transpose(1, 2)

    def schedule(self, steps):
        sigmas = torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float64)[:-1].numpy()
        self.pipeline.scheduler.set_timesteps(sigmas=sigmas, device=self.device)
        return self.pipeline.scheduler.timesteps

    def times(self, noise):
        return torch.sigmoid(noise.randn() - math.log(float(self.pipeline.scheduler.config.get("shift") or 1.0)))

    def example(self, b):
        c = self.denoiser.config
        return {"states": torch.zeros(b, TEXT, c.text_embed_dim), "words": torch.ones(b, TEXT), "strength": torch.full((b,), 6000.0),
                "pooled": torch.zeros(b, c.pooled_projection_dim)}, {}
