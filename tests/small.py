"""Random-weight stand-ins of the kit's own models, small enough for a test."""
from collections.abc import Callable

import torch

from motionlab.diffusion import cfg
from motionlab.models.small.backbone import Backbone, BackboneConfig
from motionlab.models.small.codec import Codec, CodecConfig
from motionlab.models.small.framewise import SmallUNetPipe
from motionlab.models.small.pipe import SmallPipe
from motionlab.models.small.unet import UNet, UNetConfig
from motionlab.models.evaluator import Evaluator, EvaluatorConfig


def gaussian(shape, generator: torch.Generator, dtype=torch.float32) -> torch.Tensor:
    """Standard normal noise of a seed."""
    return torch.randn(tuple(shape), generator=generator).to(dtype)


def small_model(layers: int = 1, length: int = 3, stir: float = 0.0) -> SmallPipe:
    """A `Pipe` of the kit's classes for clips of `length` latent frames; stir: deviation of noise added to every weight, so that
    none stays at its (zero) start."""
    backbone = Backbone(BackboneConfig(channels=4, d=32, layers=layers, heads=2, max_frames=length, d_text=16, d_time=16)).eval()
    if stir:
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for p in backbone.parameters():
                p.add_(stir * torch.randn(p.shape, generator=generator))
    codec = Codec(CodecConfig(channels=4, width=16, encoder_blocks=1, decoder_blocks=1)).eval()
    return SmallPipe(backbone, codec, "small", 4 * length - 3).eval()


def small_unet(frames: int = 5, stir: float = 0.0) -> SmallUNetPipe:
    """The kit's U-Net over frames encoded one by one, for clips of so many; stir: as of `small_model`."""
    unet = UNet(UNetConfig(channels=4, widths=(32, 32), heads=(2, 2), max_frames=9, d_text=16)).eval()
    if stir:
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for p in unet.parameters():
                p.add_(stir * torch.randn(p.shape, generator=generator))
    codec = Codec(CodecConfig(channels=4, width=16, encoder_blocks=1, decoder_blocks=1)).eval()
    return SmallUNetPipe(unet, codec, "small unet", frames).eval()


def small_evaluator() -> Evaluator:
    """An untrained evaluator that is sure to see every limb."""
    evaluator = Evaluator(EvaluatorConfig(fine=16, width=16, embedding=8, fine_blocks=1, frame_blocks=1, time_blocks=1)).eval()
    with torch.no_grad():
        evaluator.presence[..., -1] = 5.0
    return evaluator


def guided(backbone: Backbone, tokens: torch.Tensor, w: float = 2.0, cond: torch.Tensor | None = None,
           cond_mask: torch.Tensor | None = None) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """A model u(x, t) with text guidance `cfg`, both halves in one batch; w=0 is the conditional model, in one pass.

    Known frames are given to both halves: guidance is in the text only.
    """
    if w == 0:
        return lambda x, t: backbone(x, t, tokens, cond, cond_mask)
    both = torch.cat([tokens, backbone.grammar.null(len(tokens)).to(tokens.device)])
    cond, cond_mask = (None if a is None else torch.cat([a, a]) for a in (cond, cond_mask))

    def u(x, t):
        t = torch.as_tensor(t, device=x.device).expand(len(x))
        return cfg(*backbone(torch.cat([x, x]), torch.cat([t, t]), both, cond, cond_mask).chunk(2), w)

    return u
