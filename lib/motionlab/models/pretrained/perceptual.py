"""LPIPS on AlexNet and FID's Inception from files of this machine. Nothing is downloaded; files are read as tensors, or as TorchScript.

| name | file |
|---|---|
| alexnet | torchvision's weights, alexnet-owt-7be5be79.pth |
| lpips | the linear weights of LPIPS 0.1, alex.pth (in the package `lpips`: lpips/weights/v0.1/alex.pth) |
| inception | inception-2015-12-05.pt, the TorchScript file that StyleGAN2-ADA's FID loads |
"""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from motionlab.core.errors import MotionLabError

TAPS = (2, 5, 8, 10, 12)                         # layers of AlexNet's features after which LPIPS looks: each after its ReLU
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)         # of frames in [-1, 1]
BATCH = 16


class Lpips(nn.Module):
    """LPIPS 0.1 (Zhang et al. 2018, arXiv 1801.03924) on AlexNet: distances of neighbouring frames.

    d = sum over layers of the mean over places of w . (f_l(a) - f_l(b))^2, features of unit length per place, w of trained weights.
    """

    def __init__(self, features: nn.Sequential, weights: list[torch.Tensor]):
        super().__init__()
        self.features, self.weights = features, nn.ParameterList(nn.Parameter(w.flatten(), requires_grad=False) for w in weights)

    @torch.inference_mode()
    def steps(self, frames: np.ndarray) -> np.ndarray:
        """Distances (f - 1,) of neighbours of uint8 frames (f, h, w, 3)."""
        device, last, found = next(self.parameters()).device, None, []
        for k in range(0, len(frames), BATCH):
            part = torch.from_numpy(np.ascontiguousarray(frames[k:k + BATCH])).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
            seen = self._layers(part)
            joined = seen if last is None else [torch.cat([before, now]) for before, now in zip(last, seen)]
            found.append(sum(((z[1:] - z[:-1]).square().flatten(2).mean(2) * w).sum(1) for z, w in zip(joined, self.weights)).cpu())
            last = [z[-1:] for z in seen]
        return torch.cat(found).numpy().astype(float)

    def _layers(self, frames):
        x, found = (frames - frames.new_tensor(SHIFT)[:, None, None]) / frames.new_tensor(SCALE)[:, None, None], []
        for k, layer in enumerate(self.features, 1):
            x = layer(x)
            if k in TAPS:
                found.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return found


def open_lpips(alexnet: str | Path, lpips: str | Path, device: str = "cpu") -> Lpips:
    """LPIPS from its two files.

    Raises:
        MotionLabError: a file that is missing, no file of weights, or that of something else.
    """
    from torchvision.models import alexnet as build

    network, trunk, linear = build(weights=None).features, _tensors(alexnet, "AlexNet"), _tensors(lpips, "LPIPS")
    names = [f"lin{k}.model.1.weight" for k in range(len(TAPS))]
    mine = {name.removeprefix("features."): value for name, value in trunk.items() if name.startswith("features.")}
    if set(mine) != set(network.state_dict()) or any(mine[n].shape != v.shape for n, v in network.state_dict().items()):
        raise MotionLabError(f"'{alexnet}' holds no AlexNet.", fix="Give torchvision's alexnet-owt-7be5be79.pth.")
    if any(name not in linear for name in names):
        raise MotionLabError(f"'{lpips}' holds no weights of LPIPS.", fix="Give weights/v0.1/alex.pth of the package lpips.")
    network.load_state_dict(mine)
    for layer in network:
        if isinstance(layer, nn.ReLU):
            layer.inplace = False
    return Lpips(network, [linear[name].float() for name in names]).to(device).eval().requires_grad_(False)


def open_inception(path: str | Path, device: str = "cpu") -> Callable[[np.ndarray], np.ndarray]:
    """uint8 frames (n, h, w, 3) -> features (n, 2048) float64 of FID's own Inception.

    Raises:
        MotionLabError: no such file, no TorchScript.
    """
    if not Path(path).is_file():
        raise MotionLabError(f"There is no Inception at '{path}'.", fix="Give inception-2015-12-05.pt; nothing is downloaded.")
    try:
        network = torch.jit.load(str(path), map_location=device).eval()
    except (RuntimeError, ValueError) as error:
        raise MotionLabError(f"'{path}' is no TorchScript file ({str(error).splitlines()[0]}).",
                             fix="Give inception-2015-12-05.pt, as StyleGAN2-ADA's FID loads it.") from None

    @torch.inference_mode()
    def features(frames):
        parts = [torch.from_numpy(np.ascontiguousarray(frames[k:k + BATCH])).to(device).permute(0, 3, 1, 2)
                 for k in range(0, len(frames), BATCH)]
        return torch.cat([network(part, return_features=True) for part in parts]).double().cpu().numpy()

    return features


def _tensors(path, what):
    """{name: tensor} of a .pth file; no code of it runs."""
    if not Path(path).is_file():
        raise MotionLabError(f"There is no file of {what} at '{path}'.", fix="Give its path; nothing is downloaded.")
    try:
        found = torch.load(str(path), map_location="cpu", weights_only=True)
    except Exception as error:                   # pickle, zip and torch raise errors of many kinds
        raise MotionLabError(f"'{path}' is no file of weights ({str(error).splitlines()[0] if str(error) else type(error).__name__}).",
                             fix=f"Give the file of {what}.") from None
    if not isinstance(found, dict) or not all(torch.is_tensor(value) for value in found.values()):
        raise MotionLabError(f"'{path}' holds no weights of {what}.", fix=f"Give the file of {what}.")
    return found
