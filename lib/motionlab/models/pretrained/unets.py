"""Video U-Nets over frames encoded one by one, as a `Pipe`: Stable Video Diffusion and I2VGen-XL, both from a first frame."""
from __future__ import annotations

import importlib

import torch

from motionlab.models.frame_text import FrameText
from motionlab.models.pretrained.base import SnapshotPipe
from motionlab.models.pretrained.borders import Karras, diffusion_border
from motionlab.models.pretrained.pictures import as_pictures


class FramewisePipe(SnapshotPipe):
    """What both share: an autoencoder of single frames, so any length, and a picture that guidance takes away."""

    clip_step, group, modes, drawn_in_float32 = 1, 1, ("first",), False
    small_parts, blocks = ("image_encoder", "feature_extractor"), ("down_blocks", "up_blocks")

    def check(self):
        self.demand(self.small_parts)                    # the channels of a U-Net are those of its class

    def encode_clip(self, clip):
        return self.pipeline.vae.encode(clip).latent_dist.mode()[None]

    def known(self, first=None, last=None):
        return {} if first is None else self.draw([torch.Generator().manual_seed(0) for _ in first], first)[1]

    @property
    def unit(self):
        """Each level of the U-Net halves the latents."""
        return self.stride * 2 ** (len(self.denoiser.config.block_out_channels) - 1)


class StableVideoPipe(FramewisePipe):
    """Stable Video Diffusion: no text at all. known is {"pictures": (b, f, c, h, w), "seen": (b, 1, d)}, or each frame's own view of a
    picture, "seen" (b, f, 1, d).

    Guidance grows over the frames, from none on the first to w on the last, and takes the picture away, not a text.
    """

    kind, pipeline_class, w, steps, fps, text_parts = "svd", "StableVideoDiffusionPipeline", 2.0, 25, 7.0, ()
    bucket, noise_added = 127, 0.02                      # its pipeline's motion_bucket_id and noise_aug_strength

    def make_border(self):
        return Karras(float(self.pipeline.scheduler.config.get("sigma_max") or 700.0))

    def made_for(self):
        c = self.denoiser.config
        return c.num_frames, self.stride * _first(c.sample_size), self.stride * _last(c.sample_size)

    def text(self, prompts):
        """Prompts change nothing; an empty tensor says how many there are."""
        return {"nothing": torch.zeros(len(prompts), 0, device=self.device)}

    def unpacked(self, z):
        return z.float() / float(self.pipeline.scheduler.init_noise_sigma)

    def latents_of(self, generators):
        return super().latents_of(generators) | {"num_channels_latents": 2 * self.channels}      # the pipeline halves it

    def schedule(self, steps):
        timesteps = super().schedule(steps)
        self.border.highest = float(self.pipeline.scheduler.sigmas[0])
        return timesteps

    @torch.no_grad()
    def draw(self, generators, first=None, last=None):
        from diffusers.utils.torch_utils import randn_tensor

        first, vae = first.to(self.device, torch.float32), self.pipeline.vae
        seen = torch.cat([self.pipeline._encode_image(picture, self.device, 1, False) for picture in as_pictures(first)])
        noise = randn_tensor(first.shape, generator=list(generators), device=self.device, dtype=first.dtype)
        pictures = self.pipeline._encode_vae_image((first + self.noise_added * noise).to(vae.dtype), self.device, 1, False)
        pictures = pictures[:, None].repeat(1, self.frames, 1, 1, 1)
        return self.unpacked(self.pipeline.prepare_latents(**self.latents_of(generators))), {"pictures": pictures, "seen": seen}

    def native(self, z, timestep, text, known):
        dtype = self.denoiser.dtype
        about = torch.tensor([[self.fps - 1, self.bucket, self.noise_added]], device=z.device).repeat(len(z), 1)
        seen = known["seen"].to(dtype)
        if seen.dim() == 4 and "frame_text" not in self.__dict__:
            self.__dict__["frame_text"] = FrameText(self.denoiser)
        try:
            if seen.dim() == 4:
                self.frame_text.states, seen = seen, seen[:, 0]
            return self.denoiser(self.beside(z, known["pictures"]).to(dtype), timestep, seen, about.to(dtype), return_dict=False)[0]
        finally:
            if "frame_text" in self.__dict__:
                self.frame_text.states = None

    def null_known(self, known):
        return {name: torch.zeros_like(value) for name, value in known.items()}

    def weight(self, w, x):
        """Rising over the frames."""
        return torch.linspace(0, w, x.shape[1], device=x.device).view(1, -1, 1, 1, 1)

    def decode_clip(self, z):
        return self.pipeline.vae.decode(z[0], num_frames=z.shape[1]).sample[None]

    def times(self, noise):
        """Of log-normal noise levels, mean 0.7 and deviation 1.6 (Blattmann et al. 2023, appendix D)."""
        return 1 / (1 + (0.7 + 1.6 * noise.randn()).exp())

    def example(self, b):
        text = {"nothing": torch.zeros(b, 0)}
        return text, {"pictures": torch.zeros(b, *self.shape), "seen": torch.zeros(b, 1, self.denoiser.config.cross_attention_dim)}


class I2VGenXLPipe(FramewisePipe):
    """I2VGen-XL: text and first frame. text is {"states": (b, 77, d)}; known {"pictures": (b, f, c, h, w), "seen": (b, 1, d)}."""

    kind, pipeline_class, w, fps, text_length = "i2vgenxl", "I2VGenXLPipeline", 8.0, 16.0, 77
    made_of = (16, 704, 1280)                            # defaults of its pipeline's call

    def make_border(self):
        return diffusion_border(self.pipeline.scheduler, str(self.folder))

    def made_for(self):
        return self.made_of

    def _text_encoder(self, name):
        """Its pipeline reads `text_encoder.text_model`, which transformers 5 has no more."""
        encoder = super()._text_encoder(name)
        if not hasattr(encoder, "text_model"):
            object.__setattr__(encoder, "text_model", encoder)
        return encoder

    def encode_prompt(self, prompt):
        self.pipeline._guidance_scale = 1.0
        states, _ = self.pipeline.encode_prompt([prompt], self.device, 1, clip_skip=1)
        return {"states": states[0].to(self.dtype)}

    @torch.no_grad()
    def draw(self, generators, first=None, last=None):
        self.pipeline._guidance_scale, (height, width) = 1.0, self.size
        helpers, crop = importlib.import_module(type(self.pipeline).__module__), self.pipeline.feature_extractor.crop_size
        seen, pictures = [], []
        for picture, generator in zip(as_pictures(first), generators):
            square = helpers._resize_bilinear(helpers._center_crop_wide(picture, (width, width)), (crop["width"], crop["height"]))
            seen.append(self.pipeline._encode_image(square, self.device, 1))
            whole = self.pipeline.video_processor.preprocess(helpers._center_crop_wide(picture, (width, height)))
            with torch.random.fork_rng(devices=[]):      # its pipeline draws this from the global generator
                torch.manual_seed(generator.initial_seed())
                pictures.append(self.pipeline.prepare_image_latents(whole.to(self.dtype), self.device, self.frames, 1))
        known = {"pictures": torch.cat(pictures).transpose(1, 2), "seen": torch.cat(seen)}
        return self.unpacked(self.pipeline.prepare_latents(**self.latents_of(generators))), known

    def native(self, z, timestep, text, known):
        dtype = self.denoiser.dtype
        return self.denoiser(z.transpose(1, 2).to(dtype), timestep, torch.full((len(z),), int(self.fps), device=z.device),
                             known["pictures"].transpose(1, 2).to(dtype), known["seen"].to(dtype), text["states"].to(dtype),
                             return_dict=False)[0].transpose(1, 2)

    def null_known(self, known):
        """The text's null goes without CLIP's view of the picture, and keeps its latents."""
        return known | {"seen": torch.zeros_like(known["seen"])}

    def decode_clip(self, z):
        return torch.cat([self.pipeline.vae.decode(frame[None]).sample for frame in z[0]])[None]

    def times(self, noise):
        """Of timesteps drawn uniformly."""
        return self.border.time(int(self.pipeline.scheduler.config.num_train_timesteps) * noise.rand().cpu()).float().to(noise.device)

    def example(self, b):
        width = self.denoiser.config.cross_attention_dim
        return {"states": torch.zeros(b, 77, width)}, {"pictures": torch.zeros(b, *self.shape), "seen": torch.zeros(b, 1, width)}


def _first(size):
    return size if isinstance(size, int) else size[0]


def _last(size):
    return size if isinstance(size, int) else size[-1]
