"""The small video DiT: what the kit's step costs beside the bare diffusers model, and what batching and compiling buy.

    python tests/benchmarks/bench_training.py [--repeats 7] [--threads 2] [--compile]

Variants are timed in turn within one run; the table gives medians and ratios. Bars: a training step of `training.train`'s
parts (loss, backward, clipping, optimiser, EMA) at most 1.05 x the same on the bare CogVideoXTransformer3DModel.
"""
from __future__ import annotations

import argparse
import statistics
import time


def interleaved(variants: dict, repeats: int) -> dict[str, list[float]]:
    """Seconds of each variant, taken in turn `repeats` times after one unmeasured round."""
    times = {name: [] for name in variants}
    for turn in range(repeats + 1):
        for name, action in variants.items():
            start = time.perf_counter()
            action()
            if turn:
                times[name].append(time.perf_counter() - start)
    return times


def table(title: str, times: dict, base: str) -> None:
    print(f"\n{title}\n{'':34} {'median s':>9} {'ratio':>7} {'(lowest, highest)':>19}")
    for name, values in times.items():
        ratios = [a / b for a, b in zip(values, times[base])]
        print(f"{name:34} {statistics.median(values):9.3f} {statistics.median(ratios):7.3f}   ({min(ratios):.3f}, {max(ratios):.3f})")


def update(model, optimizers, ema, loss):
    """One update as `training.train` makes it: backward, clipping, optimiser, averaged weights."""
    import torch

    from motionlab.training.optim import set_lr

    model.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    set_lr(optimizers, 1.0)
    for optimizer in optimizers.values():
        optimizer.step()
    ema.update(100)


def training_steps(frames: int, batch: int):
    """The kit's step and the same arithmetic on the bare diffusers model: equal inputs, loss, optimiser and EMA."""
    import torch

    from motionlab.models.small.backbone import Backbone, BackboneConfig
    from motionlab.core.precision import autocast
    from motionlab.methods import open_method
    from motionlab.models.small.codec import Codec
    from motionlab.models.small.pipe import SmallPipe
    from motionlab.training import SampleNoise, TrainConfig
    from motionlab.training.ema import Ema
    from motionlab.training.optim import make_optimizers

    config = TrainConfig(optimizer="muon", bf16=True)
    sentence = "a red dog runs to the left over the meadow"

    def parts(model):
        return make_optimizers(model, config), Ema(model, 0.99)

    ours = SmallPipe(Backbone(BackboneConfig(max_frames=5)), Codec()).train()
    bare = Backbone(BackboneConfig(max_frames=5)).transformer.train()
    ours_parts, bare_parts = parts(ours), parts(bare)
    x1, said = torch.randn(batch, frames, 24, 12, 12), ours.text([sentence] * batch)
    loss_fn, text, step = open_method("plain").loss(ours), torch.randn(batch, 32, 128), [0]

    def kit():
        step[0] += 1
        with autocast("cpu"):
            loss, _ = loss_fn(ours, {"x1": x1, "text": said}, SampleNoise(0, step[0], range(batch)))
        update(ours, *ours_parts, loss)

    def diffusers():
        x0, t = torch.randn_like(x1), torch.rand(batch)
        with autocast("cpu"):
            x_t = t[:, None, None, None, None] * x1 + (1 - t[:, None, None, None, None]) * x0
            inputs = torch.cat([x_t, torch.zeros_like(x1), torch.zeros_like(x1[:, :, :1])], 2)
            u = bare(inputs, text, 1000 * (1 - t), return_dict=False)[0]
        update(bare, *bare_parts, (u.float() - (x1 - x0)).square().mean())

    return {"bare diffusers": diffusers, "kit": kit}


def guidance_steps(batch: int):
    """One guided evaluation: both halves in one batch, or one after the other."""
    import torch

    from motionlab.models.small.backbone import Backbone, BackboneConfig

    model = Backbone(BackboneConfig(max_frames=5)).eval()
    x, t = torch.randn(batch, 5, 24, 12, 12), torch.full((batch,), 0.5)
    tokens, null = model.grammar.encode(["a red dog runs to the left over the meadow"] * batch), model.grammar.null(batch)
    both = torch.cat([tokens, null])

    def run(action):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            action()

    return {"two passes": lambda: run(lambda: (model(x, t, tokens), model(x, t, null))), "one batch": lambda: run(lambda: model(torch.cat([x, x]), torch.cat([t, t]), both))}


def compiled(batch: int):
    """One forward pass as it is and through torch.compile."""
    import torch

    from motionlab.models.small.backbone import Backbone, BackboneConfig

    model = Backbone(BackboneConfig(max_frames=5)).eval()
    fast, x, t = torch.compile(model, dynamic=False), torch.randn(batch, 5, 24, 12, 12), torch.full((batch,), 0.5)
    tokens = model.grammar.encode(["a red dog runs to the left over the meadow"] * batch)

    def run(which):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            which(x, t, tokens)

    return {"as it is": lambda: run(model), "torch.compile": lambda: run(fast)}


def main():
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true", help="also time torch.compile (minutes of compilation)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for frames, batch in ((1, 32), (5, 4)):
        table(f"training step, {frames} latent frames, batch {batch}", interleaved(training_steps(frames, batch), options.repeats), "bare diffusers")
    table("guided evaluation, 5 latent frames, batch 4", interleaved(guidance_steps(4), options.repeats), "two passes")
    times = interleaved({f"{f} latent frames": training_steps(f, 4)["kit"] for f in (1, 2, 3, 4, 5)}, options.repeats)
    table("training step by length, batch 4", times, "1 latent frames")
    for name, values in times.items():
        print(f"  {name}: {4 / statistics.median(values):.1f} clips/s")
    if options.compile:
        table("forward pass, 5 latent frames, batch 4", interleaved(compiled(4), options.repeats), "as it is")


if __name__ == "__main__":
    main()
