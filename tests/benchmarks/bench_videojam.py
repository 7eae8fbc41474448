"""VideoJAM on the small video DiT: what the second stream costs in training, and three guidance passes in one batch or in turn.

    python tests/benchmarks/bench_videojam.py [--repeats 7] [--threads 2] [--batch 4]

Variants are timed in turn within one run; the table gives medians and ratios. Bars: a joint training step at most 1.10 x the
base's; a step of Inner-Guidance as one batch no slower than its three passes in turn.
"""
from __future__ import annotations

import argparse

from bench_training import interleaved, table, update

SENTENCE = "a red dog runs to the left over the meadow"


def generators():
    """The kit's own with random weights, and one that is widened."""
    from motionlab.methods import open_method
    from motionlab.models.small.backbone import Backbone, BackboneConfig
    from motionlab.models.small.codec import Codec
    from motionlab.models.small.pipe import SmallPipe

    base, joint = (SmallPipe(Backbone(BackboneConfig(max_frames=5, heads=3, rotary=True)), Codec()) for _ in range(2))
    open_method("videojam").attach(joint)
    return base, joint


def joint_steps(batch: int):
    """A training step of the base and of the widened model, each through its method."""
    import torch

    from motionlab.core.precision import autocast
    from motionlab.methods import open_method
    from motionlab.training import SampleNoise, TrainConfig
    from motionlab.training.ema import Ema
    from motionlab.training.optim import make_optimizers

    config, (base, joint) = TrainConfig(optimizer="muon", bf16=True), generators()
    x1, d1 = torch.randn(batch, 5, 24, 12, 12), torch.randn(batch, 5, 24, 12, 12)
    data = {"x1": x1, "d1": d1, "text": base.text([SENTENCE] * batch)}
    losses = {"base": (base.train(), open_method("plain").loss(base)), "joint": (joint.train(), open_method("videojam").loss(joint))}
    state = {name: (make_optimizers(model, config), Ema(model, 0.99)) for name, (model, _) in losses.items()}
    step = [0]

    def step_of(name):
        model, loss_fn = losses[name]
        optimizers, ema = state[name]
        step[0] += 1
        with autocast("cpu"):
            loss, _ = loss_fn(model, data, SampleNoise(0, step[0], range(batch)))
        update(model, optimizers, ema, loss)

    return {name: lambda name=name: step_of(name) for name in losses}


def guidance_steps(batch: int):
    """One evaluation of the sampler: text guidance on the base; Inner-Guidance as one batch, and its three passes in turn."""
    import torch

    from motionlab.papers.videojam import Guidance, inner_guidance

    base, joint = (model.eval() for model in generators())
    x, d, t = torch.randn(batch, 5, 24, 12, 12), torch.randn(batch, 5, 24, 12, 12), torch.tensor(0.3)
    text = base.text([SENTENCE] * batch)
    usual = base.guided(text, 2.0)
    inner, in_turn = (inner_guidance(joint, text, Guidance(w1=2.0, w2=1.0, batched=batched)) for batched in (True, False))
    return {"text guidance, one batch": lambda: usual(x, t), "Inner-Guidance, one batch": lambda: inner(torch.cat([x, d], 2), t),
            "Inner-Guidance, three passes": lambda: in_turn(torch.cat([x, d], 2), t)}


def main():
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    table(f"training step, 5 latent frames, batch {options.batch}", interleaved(joint_steps(options.batch), options.repeats), "base")
    times = interleaved(guidance_steps(options.batch), options.repeats)
    table(f"guided evaluation, 5 latent frames, batch {options.batch}", times, "Inner-Guidance, three passes")
    table("the same against text guidance", times, "text guidance, one batch")


if __name__ == "__main__":
    main()
