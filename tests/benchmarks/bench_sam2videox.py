"""SAM2VideoX on the small video DiT: what a training step costs beside plain's, with the teacher's maps from disk and with the teacher at work.

    python tests/benchmarks/bench_sam2videox.py [--repeats 15] [--threads 2] [--batch 8] [--online]

Variants are timed in turn within one run; the table gives medians and ratios. Bar: a step with cached maps at most 1.10 x plain's, with the
whole network trained. Beside it, without a bar: an adapter; image features (REPA), masks; --online: the shipped teacher run in every
step (claim C18). Sampling is plain's own: no head is left in it (claim C19).
Local Gram Flow by itself: bench_gram_flow.py.
"""
from __future__ import annotations

import argparse

from bench_training import interleaved, table, update

SENTENCE = "a red dog runs to the left over the meadow"
METHODS = {"plain": ("plain", {}), "sam2videox": ("sam2videox", {"tau": 0.1, "weight": 0.5}), "sam2videox, exact": ("sam2videox", {"teacher": "exact", "weight": 0.5}),
           "repa": ("repa", {"weight": 0.5}), "mask": ("mask", {"weight": 0.5}), "lora": ("lora", {"rank": 8, "targets": "to_q, to_k, to_v, to_out.0"}),
           "sam2videox, lora": ("sam2videox", {"tau": 0.1, "weight": 0.5, "rank": 8})}


def steps(batch: int, online: bool):
    """A training step of each method, as `training.train` makes it."""
    import torch

    from motionlab.core.precision import autocast
    from motionlab.correlation import inside
    from motionlab.methods import open_method
    from motionlab.models.small.backbone import Backbone, BackboneConfig
    from motionlab.models.small.codec import Codec
    from motionlab.models.small.pipe import SmallPipe
    from motionlab.training import SampleNoise, TrainConfig
    from motionlab.training.ema import Ema
    from motionlab.training.optim import make_optimizers

    m, count, ready = int(inside(12, 12).sum()), [0], {}
    x1 = torch.randn(batch, 5, 24, 12, 12)
    targets = {"sam2videox": torch.rand(batch, 2, 4, m), "sam2videox, exact": torch.rand(batch, 4, m) / 49, "repa": torch.randn(batch, 5, 12, 12, 128),
               "mask": torch.rand(batch, 5, 12, 12), "sam2videox, lora": torch.rand(batch, 2, 4, m)}
    for name, (kind, settings) in METHODS.items():
        pipe, method = SmallPipe(Backbone(BackboneConfig(max_frames=5, heads=3, rotary=True)), Codec()).train(), open_method(kind, **settings)
        method.attach(pipe)
        config = TrainConfig(bf16=True, optimizer="adamw" if "lora" in name else "muon")
        ready[name] = (pipe, method.loss(pipe), make_optimizers(pipe, config), Ema(pipe, 0.98), pipe.text([SENTENCE] * batch))
    look = teacher(batch) if online else None

    def step(name, first=lambda: None):
        pipe, loss_fn, optimizers, ema, text = ready[name]
        count[0] += 1
        data = {"x1": x1, "text": text} | ({"target": targets[name]} if name in targets else {})
        first()
        with autocast("cpu"):
            loss, _ = loss_fn(pipe, data, SampleNoise(0, count[0], range(batch)))
        update(pipe, optimizers, ema, loss)

    made = {name: lambda name=name: step(name) for name in METHODS}
    return made | ({"sam2videox, teacher at work": lambda: step("sam2videox", look)} if online else {})


def teacher(batch: int):
    """One pass of the tracker over a batch's clips, both ways, and its maps."""
    import numpy as np

    from motionlab.core.errors import MotionLabError
    from motionlab.correlation import local_correlation
    from motionlab.data.seen import look

    shown = np.random.default_rng(0).integers(0, 256, (batch, 5, 192, 192, 3), np.uint8)
    subjects = np.zeros(shown.shape[:-1], bool)
    subjects[:, :, 60:120, 60:120] = True
    try:
        look("sam2", shown[:1], subjects[:1])
    except MotionLabError as error:
        raise SystemExit(f"--online needs the shipped SAM2: {error}") from None

    def run():
        found = look("sam2", shown, subjects)
        return local_correlation(found.forward), local_correlation(found.backward)

    return run


def main():
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--online", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    table(f"training step, 5 latent frames, batch {options.batch}", interleaved(steps(options.batch, options.online), options.repeats), "plain")


if __name__ == "__main__":
    main()
