"""Random-weight stand-ins of the kit's own models, small enough for a test."""
import torch

from motionlab.models.small.backbone import Backbone, BackboneConfig
from motionlab.models.small.codec import Codec, CodecConfig
from motionlab.models.small.pipe import SmallPipe
from motionlab.models.evaluator import Evaluator, EvaluatorConfig


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


def small_evaluator() -> Evaluator:
    """An untrained evaluator that is sure to see every limb."""
    evaluator = Evaluator(EvaluatorConfig(fine=16, width=16, embedding=8, fine_blocks=1, frame_blocks=1, time_blocks=1)).eval()
    with torch.no_grad():
        evaluator.presence[..., -1] = 5.0
    return evaluator
