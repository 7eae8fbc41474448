"""Transformers with more channels in and out of their patch projections: how a method adds a stream beside the video's latents.

Knows CogVideoX (2-D convolution over patches; 1.5: linear over patches), Wan and HunyuanVideo (3-D convolution) and any transformer
with a linear embedding `proj_in` (LTX). New input rows are zero, so that whatever is given there changes nothing at first.
"""
from __future__ import annotations

import torch
from torch import nn

from motionlab.core.errors import MotionLabError, one_of

STARTS = ("zero", "copy")


def more_inputs(transformer: nn.Module, channels: int, new_lr: float = 1.0) -> nn.Module:
    """Read `channels` more latent channels behind those that it reads, through rows at zero; in place.

    Args:
        new_lr: how many times as fast as all else the new rows learn (their `lr_scale`, see `training`).

    Raises:
        MotionLabError: a transformer without the projection that is expected, new_lr not above 0.
    """
    _check(new_lr)
    holder, name = _projection(transformer, INPUTS)
    setattr(holder, name, _wider_in(getattr(holder, name), channels, transformer.config["in_channels"], new_lr))
    transformer.register_to_config(in_channels=transformer.config["in_channels"] + channels)
    return transformer


def more_outputs(transformer: nn.Module, channels: int, start: str = "zero", new_lr: float = 1.0) -> nn.Module:
    """Write `channels` more latent channels behind those that it writes, in place; errors and new_lr as `more_inputs`.

    Args:
        start: of the new columns, "zero" or "copy" of the old ones.
    """
    _check(new_lr)
    one_of(start, STARTS, "start of the new output columns")
    holder, name = _projection(transformer, OUTPUTS)
    out = getattr(holder, name)
    before = transformer.config.get("out_channels")
    positions = out.out_features // (before or transformer.config["in_channels"] - channels)
    setattr(holder, name, _wider_out(out, channels, positions, _channels_first(transformer), start, new_lr))
    if before is not None:
        transformer.register_to_config(out_channels=before + channels)
    return transformer


def _check(new_lr):
    if not new_lr > 0:
        raise MotionLabError(f"new_lr is {new_lr}: new rows and columns would not learn.", fix="Give a factor above 0, for example 1.")


INPUTS, OUTPUTS = ("patch_embed.proj", "patch_embedding", "x_embedder.proj", "proj_in"), ("proj_out",)


def _projection(transformer, names):
    """(the module that holds it, its name in there) of the first of `names` that is there."""
    for name in names:
        holder, _, last = name.rpartition(".")
        owner = transformer
        for part in filter(None, holder.split(".")):
            owner = getattr(owner, part, None)
        if isinstance(getattr(owner, last, None), (nn.Linear, nn.Conv2d, nn.Conv3d)):
            return owner, last
    raise MotionLabError(f"{type(transformer).__name__} has none of the projections {', '.join(names)} that could be widened.",
                         fix="Use CogVideoX, Wan, HunyuanVideo or LTX, or name its projection in models/widening.py.")


def _channels_first(transformer):
    """Is a token's output ordered (channel, patch) as in CogVideoX and HunyuanVideo, or (patch, channel) as in Wan?"""
    return any(name in type(transformer).__name__ for name in ("CogVideoX", "HunyuanVideo"))


def _wider_in(old, channels, before, new_lr):
    """A projection with `channels` more input channels behind the `before` old ones; a linear one over patches has channels first."""
    if isinstance(old, nn.Linear):
        new = nn.Linear(old.in_features // before * (before + channels), old.out_features, bias=old.bias is not None)
    else:
        new = type(old)(old.in_channels + channels, old.out_channels, old.kernel_size, old.stride, old.padding, bias=old.bias is not None)
    new = new.to(old.weight)
    with torch.no_grad():
        new.weight.zero_()
        new.weight[:, :old.weight.shape[1]] = old.weight
        if old.bias is not None:
            new.bias.copy_(old.bias)
    fresh = torch.ones_like(new.weight)
    fresh[:, :old.weight.shape[1]] = 0
    _hurry(new.weight, fresh, new_lr)
    return new


def _wider_out(old, channels, positions, channels_first, start, new_lr):
    """A linear layer whose rows are (c, patch) or (patch, c), with `channels` more c behind the old ones."""
    c = old.out_features // positions
    if start == "copy" and channels != c:
        raise MotionLabError(f"{channels} motion channels cannot copy the columns of {c} appearance channels.", fix="Use new='zero'.")
    new = nn.Linear(old.in_features, (c + channels) * positions, bias=old.bias is not None).to(old.weight)
    with torch.no_grad():
        for name, value in old.named_parameters():
            rows = value.unflatten(0, (c, positions) if channels_first else (positions, c))
            axis = 0 if channels_first else 1
            more = rows if start == "copy" else torch.zeros_like(rows.narrow(axis, 0, 1)).repeat_interleave(channels, axis)
            getattr(new, name).copy_(torch.cat([rows, more], axis).flatten(0, 1))
            fresh = torch.cat([torch.zeros_like(rows), torch.ones_like(more)], axis).flatten(0, 1)
            _hurry(getattr(new, name), fresh, new_lr)
    return new


def _hurry(parameter, fresh, new_lr):
    if new_lr != 1:
        parameter.lr_scale = 1 + (new_lr - 1) * fresh
