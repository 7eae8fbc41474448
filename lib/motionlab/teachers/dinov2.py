"""DINOv2 from a folder of this machine: features of patches, with no memory of other frames."""
from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from motionlab.core.errors import MotionLabError
from motionlab.teachers.folders import demand_whole, opened
from motionlab.teachers.weights import to_device

TOGETHER = 32            # pictures at once


class Dinov2(nn.Module):
    """DINOv2 (Oquab et al. 2023, arXiv 2304.07193): patch features. width: of one."""

    def __init__(self, model):
        super().__init__()
        self.model, self.width, self.patch = model.requires_grad_(False), model.config.hidden_size, model.config.patch_size
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1), persistent=False)

    def fitted(self, frames: torch.Tensor, patches: int) -> torch.Tensor:
        """Frames (n, 3, h, w) resized so that they have so many patches, in their own proportions.

        Raises:
            MotionLabError: no grid of these proportions has so many.
        """
        h, w = frames.shape[-2:]
        rows = round((patches * h / w) ** 0.5)
        if rows < 1 or patches % rows:
            raise MotionLabError(f"Frames of {h}x{w} have no grid of {patches} patches.",
                                 fix="Align another layer, or clips of other proportions.")
        size = (self.patch * rows, self.patch * (patches // rows))
        return nn.functional.interpolate(frames, size, mode="bicubic", antialias=True)

    @torch.no_grad()
    def features(self, frames: torch.Tensor) -> torch.Tensor:
        """Patch features (n, patches, d) after the final norm, float32, of frames (n, 3, h, w) in [-1, 1] (REPA's x_norm_patchtokens)."""
        inputs = ((frames.float() + 1) / 2 - self.mean) / self.std
        return torch.cat([self.model(part).last_hidden_state[:, 1:].float() for part in inputs.split(TOGETHER)])


def open_dinov2(folder: str | Path, device: str = "cpu") -> Dinov2:
    """DINOv2 from a folder that transformers wrote, such as a download of dinov2-base; errors as `teachers.folders`."""
    from transformers import AutoImageProcessor, Dinov2Model

    model, _, missing = opened(folder, "dinov2", Dinov2Model, AutoImageProcessor)
    demand_whole(missing, folder)
    return to_device(Dinov2(model), device)
