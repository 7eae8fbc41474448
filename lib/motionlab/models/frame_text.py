"""A text of its own for every frame, in diffusers' UNetSpatioTemporalConditionModel (Stable Video Diffusion's class), unmodified.

The class takes one text per clip, and its temporal cross-attention would give all frames that of the *first* one, copied to every
pixel. Here the frames are folded into the batch instead, so that each attends to its own states; where all frames have the same text
the result is the class's own, and cheaper, since keys and values are made once a frame and not once a pixel.
"""
from __future__ import annotations

import torch
from einops import rearrange
from torch import nn


class FrameText:
    """Hooks of a U-Net: the text states of its next calls, `states` (b, f, n, d); None: the class's own way."""

    def __init__(self, unet: nn.Module):
        self.states: torch.Tensor | None = None
        for name, module in unet.named_modules():
            if type(module).__name__ == "TransformerSpatioTemporalModel":
                module.register_forward_pre_hook(self._spatial, with_kwargs=True)
            if name.endswith("attn2") and ".temporal_transformer_blocks." in name:
                module.register_forward_pre_hook(self._fold, with_kwargs=True)
                module.register_forward_hook(self._unfold, with_kwargs=True)

    def _spatial(self, module, args, kwargs):
        return None if self.states is None else (args, kwargs | {"encoder_hidden_states": self.states.flatten(0, 1)})

    def _fold(self, module, args, kwargs):
        """(b h w, f, d) with a text per pixel -> (b f, h w, d) with a text per frame."""
        if self.states is None:
            return None
        folded = rearrange(args[0], "(b s) f d -> (b f) s d", b=len(self.states))
        return (folded, *args[1:]), kwargs | {"encoder_hidden_states": self.states.flatten(0, 1)}

    def _unfold(self, module, args, kwargs, output):
        return None if self.states is None else rearrange(output, "(b f) s d -> (b s) f d", b=len(self.states))


class TokenText:
    """Hooks of a video transformer whose cross-attention `attn2` stands apart from self-attention (Wan's): the embedded text of its next
    calls, `states` (b, f, n, d); None: the class's own way. Frames are folded into the batch there, and whatever stands before the text in
    the context (an image encoder's view) is every frame's."""

    def __init__(self, transformer: nn.Module):
        self.states: torch.Tensor | None = None
        for name, module in transformer.named_modules():
            if name.endswith(".attn2"):
                module.register_forward_pre_hook(self._fold)
                module.register_forward_hook(self._unfold)

    def _fold(self, module, args):
        if self.states is None:
            return None
        b, f, n, _ = self.states.shape
        tokens, context = args[0].unflatten(1, (f, -1)).flatten(0, 1), args[1]
        before = context[:, :context.shape[1] - n].repeat_interleave(f, 0)
        return (tokens, torch.cat([before, self.states.flatten(0, 1).to(context)], 1), *args[2:])

    def _unfold(self, module, args, output):
        return None if self.states is None else output.unflatten(0, self.states.shape[:2]).flatten(1, 2)


def per_frame(states: torch.Tensor, f: int) -> torch.Tensor:
    """States (b, n, d), the same for all frames, or (b, f, n, d), as (b, f, n, d)."""
    return states[:, None].expand(-1, f, -1, -1) if states.dim() == 3 else states
