"""Text states of prompts, each worked out once: large text encoders are read late, freed early, and not needed beside a cache."""
from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from motionlab.core.files import save_weights


class TextStates:
    """What a snapshot's text encoders make of prompts, {name: (n, ...)} each, by `work_out(prompt)`.

    States stay on the CPU until they are asked for, and in the folder `cache` between runs: with it, a machine without the
    text encoders can use them. A prompt is worked out alone, so it never depends on its neighbours.

    Args:
        snapshot, encoders: names of the weights; files of another snapshot or of other encoders are not ours.
    """

    def __init__(self, work_out: Callable[[str], dict[str, torch.Tensor]], snapshot: str, encoders: str, cache: str | Path | None = None):
        self.work_out, self.snapshot, self.encoders = work_out, snapshot, encoders
        self.cache = None if cache is None else Path(cache)
        self.known: dict[str, dict[str, torch.Tensor]] = {}

    def __call__(self, prompts: Sequence[str]) -> dict[str, torch.Tensor]:
        """{name: (b, ...)}, a row per prompt.

        Raises:
            MotionLabError: the text encoders are missing and the cache does not know a prompt.
        """
        for prompt in prompts:
            if prompt not in self.known:
                self.known[prompt] = self._cached(prompt)
        rows = [self.known[prompt] for prompt in prompts]
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]} if rows else {}

    def _cached(self, prompt):
        from safetensors import SafetensorError, safe_open

        if self.cache is None:
            return self.work_out(prompt)
        path = self.cache / f"{self.snapshot}-{hashlib.sha256(prompt.encode()).hexdigest()[:16]}.safetensors"
        try:
            with safe_open(str(path), "pt") as file:
                about = file.metadata() or {}
                if about.get("prompt") == prompt and self.encoders in ("", about.get("text_encoder")):
                    return {name: file.get_tensor(name) for name in file.keys()}
        except (SafetensorError, OSError):         # not there, or a broken file, which is written again
            pass
        states = self.work_out(prompt)
        save_weights(path, {name: value.contiguous() for name, value in states.items()}, {"prompt": prompt, "text_encoder": self.encoders})
        return states
