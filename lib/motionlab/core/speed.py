"""How fast a device multiplies matrices: what costs are stated relative to."""
from __future__ import annotations

import time
from typing import Any


def speed(device: str, seconds: float) -> dict[str, float]:
    """TFLOP/s of bf16 and fp32 matrix products on `device`; a type that it cannot do is left out."""
    import torch

    size = 1024 if device == "cpu" else 4096
    found = {}
    for name, kind in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        try:
            left = torch.ones(size, size, dtype=kind, device=device)
            found[name] = round(_products_per_second(left, device, seconds / 2) * 2 * size**3 / 1e12, 3)
        except (RuntimeError, TypeError):
            continue
    return found


def _products_per_second(left: Any, device: str, seconds: float) -> float:
    """Repeats `left @ left` for about `seconds`, after a first product that warms up."""
    import torch

    def wait() -> None:
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        elif device == "mps":
            torch.mps.synchronize()

    torch.matmul(left, left)
    wait()
    began, count = time.perf_counter(), 0
    while count == 0 or time.perf_counter() - began < seconds:
        torch.matmul(left, left)
        wait()
        count += 1
    return count / (time.perf_counter() - began)
