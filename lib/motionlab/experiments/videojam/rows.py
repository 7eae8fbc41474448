"""VideoJAM's arms as sweep rows: joint training by the protocol, Inner-Guidance and its ablations, all controls."""
from __future__ import annotations

from pathlib import Path

from motionlab.core.config import from_values
from motionlab.experiments import arms as plain
from motionlab.experiments.measure import measure
from motionlab.data.prompts import load_prompts
from motionlab.experiments.videojam.joint import joint_clips, trained
from motionlab.experiments.videojam.shuffled import shuffle_gap
from motionlab.models.image_encoder import load_image_encoder
from motionlab.models.shipped import shipped
from motionlab.papers.videojam import Guidance

GUIDED = ("w1", "w2", "interval", "rule", "motion_half")


def run_row(arm: dict, seed: int, out_dir: Path, tier: str, prompts: str = "test", n: int | None = None, length: int = 5, steps: int = 20,
            w: float = 2.0, weights: str = "base") -> list[dict]:
    """Clips of one arm and what they score; with `measure: shuffle`, what its loss says of shuffled frames instead.

    Args:
        arm: source "joint" (train from `weights`, or find the training that another arm with the same training fields left),
            or a source of `experiments.arms.run_row`. Training fields: lr, new_lr, clip_steps, clips, layers, teacher, noise,
            motion_weight, new, text_dropout, motion_dropout. Guidance fields: w1, w2, interval, rule, motion_half.

    Raises:
        MotionLabError: an unknown source or field value, a missing checkpoint.
    """
    arm = arm | {"n": arm.get("n", n), "weights": arm.get("weights", weights)}
    if tier == "smoke":
        arm, steps = plain.smaller(arm, steps)
    if arm.get("measure") == "shuffle":
        return shuffle_gap(arm, seed, out_dir.parent / "trained", length, tier=tier)
    if arm.get("source") != "joint":
        return plain.run_row(arm, seed, out_dir, tier, prompts, n, length, steps, w)
    chosen = load_prompts(arm.get("prompts", prompts), arm["n"])

    def make():
        model = trained(arm, seed, out_dir.parent / "trained", length)
        return joint_clips(model, chosen, seed, from_values(Guidance, guidance_of(arm, w), "guidance"), length, steps)[0]

    frames = plain.kept(out_dir / "frames.npy", make)
    plain.keep_sheet(frames, out_dir / "samples.png")
    return measure(frames, chosen, plain.load_evaluators(), arm["name"], seed, load_image_encoder(shipped("image_encoder")))


def guidance_of(arm: dict, w: float) -> dict:
    """The arm's guidance fields; w1 is the protocol's text guidance where the arm does not say."""
    out = {"w1": w} | {k: arm[k] for k in GUIDED if k in arm}
    return out | ({"interval": tuple(out["interval"])} if "interval" in out else {})
