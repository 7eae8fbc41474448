"""VideoJAM on the small video DiT: what the second stream costs in training, and three guidance passes in one batch or in turn.

    python tests/benchmarks/bench_videojam.py [--repeats 7] [--threads 2] [--batch 4]

Variants are timed in turn within one run; the table gives medians and ratios. Bars: a joint training step at most 1.10 x the
base's; a step of Inner-Guidance as one batch no slower than its three passes in turn.
"""
from __future__ import annotations

import argparse

from bench_training import interleaved, table, update

SENTENCE = "a red dog runs to the left over the meadow"


def joint_steps(batch: int):
    """One update of the base by its own loss, and of the joint model by both velocities; equal clips, optimiser and EMA."""
    import torch

    from motionlab.models.small.backbone import Backbone, BackboneConfig
    from motionlab.papers.videojam import JointBackbone, JointRecipe, joint_training_loss
    from motionlab.pretrain.base import BaseRecipe, flow_matching_loss
    from motionlab.training import SampleNoise, TrainConfig
    from motionlab.training.ema import Ema
    from motionlab.training.optim import make_optimizers

    config, base = TrainConfig(optimizer="muon", bf16=True), Backbone(BackboneConfig(max_frames=5)).train()
    joint = JointBackbone(Backbone(BackboneConfig(max_frames=5))).train()
    x1, d1 = torch.randn(batch, 5, 24, 12, 12), torch.randn(batch, 5, 24, 12, 12)
    data = {"x1": x1, "d1": d1, "tokens": base.grammar.encode([SENTENCE] * batch)}
    losses = {"base": (base, flow_matching_loss(BaseRecipe(length=5), base.grammar)), "joint": (joint, joint_training_loss(JointRecipe(), base.grammar.null(1)))}
    state = {name: (make_optimizers(model, config), Ema(model, 0.99)) for name, (model, _) in losses.items()}
    step = [0]

    def step_of(name):
        model, loss_fn = losses[name]
        optimizers, ema = state[name]
        step[0] += 1
        with torch.autocast("cpu", torch.bfloat16):
            loss, _ = loss_fn(model, data, SampleNoise(0, step[0], range(batch)))
        update(model, optimizers, ema, loss)

    return {name: lambda name=name: step_of(name) for name in losses}


def guidance_steps(batch: int):
    """One evaluation of the sampler: text guidance on the base; Inner-Guidance as one batch, and its three passes in turn."""
    import torch

    from motionlab.models.small.backbone import Backbone, BackboneConfig, guided
    from motionlab.papers.videojam import Guidance, JointBackbone, inner_guidance

    base, joint = Backbone(BackboneConfig(max_frames=5)).eval(), JointBackbone(Backbone(BackboneConfig(max_frames=5))).eval()
    x, d, t = torch.randn(batch, 5, 24, 12, 12), torch.randn(batch, 5, 24, 12, 12), torch.tensor(0.3)
    tokens = base.grammar.encode([SENTENCE] * batch)
    text = guided(base, tokens, 2.0)
    inner, in_turn = (inner_guidance(joint, tokens, Guidance(w1=2.0, w2=1.0, batched=batched)) for batched in (True, False))

    def run(action):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            action()

    return {"text guidance, one batch": lambda: run(lambda: text(x, t)),
            "Inner-Guidance, one batch": lambda: run(lambda: inner(torch.cat([x, d], 2), t)),
            "Inner-Guidance, three passes": lambda: run(lambda: in_turn(torch.cat([x, d], 2), t))}


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
