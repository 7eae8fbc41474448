"""A training step and a sampling of the small base, of this checkout against those of an earlier commit, in turn within one run.

    python tests/benchmarks/bench_before.py [--commit b459824] [--repeats 7] [--threads 2]

Each side is a process of its own that waits while the other works. The earlier one runs its own code (`git worktree`, removed afterwards)
with the base of its time: absolute positions, 6 heads of 32. Bar: the step at least 1.6 x as fast; sampling no slower.
"""
from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench_training import interleaved, table

BATCH, PROMPTS = 8, 16
SENTENCE = "a red dog runs to the left over the meadow"


def stepper(pipe_or_backbone, loss_fn, batch, sample_noise, make_optimizers, ema, config, autocast):
    """One update of `batch` clips as `training.train` makes it, without logs and checkpoints."""
    import torch

    model = pipe_or_backbone.train()
    optimizers, ema, count = make_optimizers(model, config), ema(model, 0.995), [0]

    def step():
        count[0] += 1
        with autocast():
            loss, _ = loss_fn(model, batch, sample_noise(0, count[0], range(BATCH)))
        model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers.values():
            optimizer.step()
        ema.update(count[0])

    return step


def now():
    """(step, sampling) of this checkout."""
    import torch

    from motionlab.core.noise import SampleNoise
    from motionlab.core.precision import autocast
    from motionlab.methods import open_method
    from motionlab.models.small.backbone import Backbone, BackboneConfig
    from motionlab.models.small.codec import Codec
    from motionlab.models.small.pipe import SmallPipe
    from motionlab.training import TrainConfig
    from motionlab.training.ema import Ema
    from motionlab.training.optim import make_optimizers

    torch.manual_seed(0)
    trained, still = (SmallPipe(Backbone(BackboneConfig(max_frames=5, heads=3, rotary=True)), Codec()) for _ in range(2))
    batch = {"x1": torch.randn(BATCH, 5, 24, 12, 12), "stills": torch.randn(BATCH, 5, 24, 12, 12), "text": trained.text([SENTENCE] * BATCH)}
    loss = open_method("plain", stills=True).loss(trained)
    step = stepper(trained, loss, batch, SampleNoise, make_optimizers, Ema, TrainConfig(optimizer="muon"), lambda: autocast("cpu"))
    still.eval()
    return step, lambda: still.decode(still.sample([SENTENCE] * PROMPTS, range(PROMPTS)))


def before():
    """The same of the earlier commit, by its own names."""
    import torch

    from motionlab.models.backbone import Backbone, BackboneConfig
    from motionlab.models.codec import Codec
    from motionlab.models.generate import generate
    from motionlab.pretrain.base import BaseRecipe, flow_matching_loss
    from motionlab.training import SampleNoise, TrainConfig, _Ema, _optimizers

    torch.manual_seed(0)
    trained, still, codec = Backbone(BackboneConfig(max_frames=5)), Backbone(BackboneConfig(max_frames=5)).eval(), Codec()
    batch = {"x1": torch.randn(BATCH, 5, 24, 12, 12), "tokens": trained.grammar.encode([SENTENCE] * BATCH)}
    loss = flow_matching_loss(BaseRecipe(), trained.grammar)
    step = stepper(trained, loss, batch, SampleNoise, _optimizers, _Ema, TrainConfig(optimizer="muon"),
                   lambda: torch.autocast("cpu", torch.bfloat16))
    return step, lambda: generate(still, codec, [SENTENCE] * PROMPTS, range(PROMPTS))


def serve(side: str, threads: int) -> None:
    """Do what is asked for on standard input, a word a line, and answer each with "done"."""
    import torch

    torch.set_num_threads(threads)
    step, sample = {"now": now, "before": before}[side]()
    print("ready", flush=True)
    for word in sys.stdin:
        {"step": step, "sample": sample}[word.strip()]()
        print("done", flush=True)


class Side:
    """A process with one side's code, which works only while it is asked to."""

    def __init__(self, side: str, lib: Path, threads: int):
        path = os.pathsep.join([str(lib), str(Path(__file__).parent)])
        self.process = subprocess.Popen([sys.executable, __file__, "--serve", side, "--threads", str(threads)], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        env=os.environ | {"PYTHONPATH": path, "OMP_WAIT_POLICY": "PASSIVE"})
        self.hear("ready")

    def hear(self, word: str) -> None:
        said = self.process.stdout.readline().strip()
        if said != word:
            raise SystemExit(f"A side said {said!r} in the place of {word!r}; its own message is above.")

    def ask(self, word: str) -> None:
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        self.hear("done")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commit", default="b459824")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve(options.serve, options.threads)
    root, began = Path(__file__).resolve().parents[2], time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "before"
        subprocess.run(["git", "-C", str(root), "worktree", "add", "--quiet", "--detach", str(tree), options.commit], check=True)
        try:
            sides = {options.commit: Side("before", tree / "lib", options.threads), "now": Side("now", root / "lib", options.threads)}
            for word, title in (("step", f"training step, 5 latent frames, batch {BATCH}"), ("sample", f"sampling {PROMPTS} prompts, guided")):
                actions = {name: lambda side=side, word=word: side.ask(word) for name, side in sides.items()}
                table(title, interleaved(actions, options.repeats if word == "step" else max(2, options.repeats // 2)), options.commit)
        finally:
            subprocess.run(["git", "-C", str(root), "worktree", "remove", "--force", str(tree)], check=True)
    print(f"\n{time.monotonic() - began:.0f} s in all")


if __name__ == "__main__":
    main()
