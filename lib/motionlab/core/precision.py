"""Where bfloat16 is worth computing in: processors without instructions for it are ten times slower in it than in float32."""
from __future__ import annotations

import os
from functools import lru_cache

import torch


@lru_cache(maxsize=None)
def fast_bf16(device_type: str) -> bool:
    """Whether this device multiplies matrices in bfloat16 natively: any GPU; a CPU with AVX512-BF16, AMX or Arm's BF16.

    Measured with torch 2.15 on a CPU with AVX2 only: 0.13 TFLOP/s in float32, 0.015 in bfloat16. The environment variable
    MOTIONLAB_BF16 (0 or 1) decides instead, for numbers that are to be the same on machines of both kinds.
    """
    if os.environ.get("MOTIONLAB_BF16") in ("0", "1"):
        return os.environ["MOTIONLAB_BF16"] == "1"
    if device_type != "cpu":
        return True
    known = getattr(torch.cpu, "get_capabilities", dict)()          # a torch without it: float32, which is always right
    return any(known.get(name) is True for name in ("avx512_bf16", "amx_bf16", "bf16"))


def autocast(device: torch.device | str, wanted: bool = True) -> torch.autocast:
    """bfloat16 autocast where it is `wanted` and fast, else the weights' own type: results differ between machines by rounding."""
    kind = torch.device(device).type
    return torch.autocast(kind, torch.bfloat16, enabled=wanted and fast_bf16(kind))
