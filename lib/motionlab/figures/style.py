"""How arms and metrics look: (label, colour) of an arm, (label, unit, direction) of a metric. One place for all figures.

What the kit itself compares stands here; what a paper's experiments compare stands beside them, in
`reproductions/<paper>/arms.yaml`: {name: {label, colour}}. An arm has one label and one colour in every figure.
"""
from __future__ import annotations

import functools
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

from motionlab.core.config import from_values
from motionlab.core.errors import MotionLabError, one_of
from motionlab.core.paths import repo_root
from motionlab.core.yamls import read_yaml

PALETTE = {"dark": "#22303c", "red": "#c4512d", "blue": "#3f7fb5", "violet": "#8a6bb1", "green": "#5b8c5a", "ochre": "#b59a3f",
           "grey": "#8fa3b0"}
DARK, ACCENT, SOFT = PALETTE["dark"], PALETTE["red"], PALETTE["grey"]
NEUTRAL = ("blue", "violet", "green", "ochre")                            # for names that nobody has given a colour
STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))     # told apart in greyscale too
MARKERS = "osD^vP"


# ---------------------------------------------------------------------------------------------- arms
@dataclass(frozen=True)
class Look:
    """An entry of arms.yaml. label: "" is the name itself. colour: a word of `PALETTE`; "" is one of `NEUTRAL`."""

    label: str = ""
    colour: str = ""


# {word} stands for any text without "=", in the label too. "column=name" is for what is no arm.
ARMS: dict[str, tuple[str, str]] = {
    "original": ("real clips", "dark"),
    "reconstruction": ("real, through the codec", "grey"),
    "base": ("base", "blue"),
    "untrained": ("untrained, same shape", "grey"),
    "trunk": ("trunk", "dark"),
    "plain": ("same budget, no cure", "violet"),
    "oracle": ("exact motion given", "green"),
    "noise_{size}": ("latent noise {size}", "violet"),
    # known changes (metrics.changes)
    "identity": ("the original", "dark"),
    "dropped_limb": ("one limb stops / is missing", "dark"),
    "amplitude_half": ("half amplitude", "dark"),
    "amplitude_more": ("1.5x amplitude", "dark"),
    "spatial_shift": ("shifted by 20 %", "dark"),
    "speed_half": ("half speed", "dark"),
    "speed_double": ("double speed", "dark"),
    "jitter": ("jitter, 1 px of 48", "dark"),
    "step_lengths": ("step lengths redrawn", "dark"),
    "frame_shuffle": ("frames shuffled", "dark"),
    "mirror": ("mirrored", "dark"),
    "time_reversal": ("played backwards", "dark"),
    "frozen": ("frozen", "dark"),
    "another_clip": ("another clip", "dark"),
    # known damage with its dose (metrics.structure)
    "clean_0": ("undamaged", "grey"),
    "hide_1": ("one limb hidden", "red"),
    "hide_2": ("two limbs hidden", "red"),
    "shift_{pixels}": ("a limb off by {pixels} px", "violet"),
    "blur_{pixels}": ("blurred, {pixels} px", "blue"),
    "contrast_{size}": ("contrast x {size}", "grey"),
    "brightness_{size}": ("{size} levels brighter", "grey"),
    "blotches_{size}": ("still blotches, {size} levels", "grey"),
    "frozen_1": ("frozen", "ochre"),
    "late_{share}": ("a limb late", "violet"),
    "gait_1": ("another species' gait", "red"),
    "stutter_{share}": ("frames held, dose {share}", "ochre"),
    "shuffle_{share}": ("frames shuffled, dose {share}", "green"),
    "source=base": ("the world's clips", "dark"),
    "source=reconstruction": ("the world's clips, through the codec", "dark"),
    "source=camera": ("a camera clip", "dark"),
    "source=mtbench": ("clips of MTBench", "dark"),
    "source=mtbench_full": ("clips of MTBench, all frames", "dark"),
    "shuffled_1": ("frames shuffled", "green"),
    "species_1": ("another species", "dark"),
    # teachers
    "dis": ("DIS flow", "dark"),
    "raft": ("RAFT flow", "dark"),
    "lucas_kanade": ("Lucas-Kanade tracks", "dark"),
    "dis_chained": ("chained DIS tracks", "dark"),
    "cotracker": ("CoTracker3 tracks", "dark"),
    # where in a clip, in a model, in time
    "foreground": ("subject", "red"),
    "background": ("background", "dark"),
    "depth={third}": ("{third} third of the blocks", "dark"),
    "t={t}": ("t = {t}", "dark"),
}


def look(name, paper: str = "", column: str = "arm") -> tuple[str, str]:
    """Label and colour "#rrggbb" of an arm, or of another column's value.

    A paper's own names come before the kit's, names before patterns, `column=name` before the bare name. An unknown name
    is its own label; its colour is one of the neutral ones, always the same, so two unknown names can share it: line
    styles and marks tell them apart.

    Args:
        paper: folder below reproductions/ whose arms.yaml counts too. column: of the table that holds the name.

    Raises:
        MotionLabError: no such paper, a malformed arms.yaml.
    """
    keys, own = (f"{column}={name}", str(name)), _arms_of(paper)
    known = own | ARMS | own                                              # the paper's first, in its order and words
    label, colour = next((known[key] for key in keys if key in known), None) or _by_pattern(keys, known) or ("", "")
    return label or str(name), PALETTE[colour or NEUTRAL[zlib.crc32(str(name).encode()) % len(NEUTRAL)]]


def labels(names, paper: str = "", column: str = "arm") -> list[str]:
    """The labels of several names, as `look`."""
    return [look(name, paper, column)[0] for name in names]


def _by_pattern(keys, known):
    """(label, colour) of the first of `keys` that fits an entry with {words}, or None."""
    wanted = {re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^=]+)", re.escape(name)): one for name, one in known.items() if "{" in name}
    for key in keys:
        for pattern, (label, colour) in wanted.items():
            if found := re.fullmatch(pattern, key):
                return label.format(**found.groupdict()), colour
    return None


def _arms_of(paper: str) -> dict[str, tuple[str, str]]:
    """{name: (label, colour)} of a paper's arms.yaml; none where it has no such file, or for ""."""
    if not paper:
        return {}
    folder = repo_root() / "reproductions"
    path = folder / one_of(paper, sorted(one.name for one in folder.iterdir() if one.is_dir()), "paper") / "arms.yaml"
    return _read(path, path.stat().st_mtime_ns) if path.is_file() else {}


@functools.lru_cache(maxsize=32)
def _read(path: Path, changed: int) -> dict[str, tuple[str, str]]:
    where, entries, out = f"in {path.parent.name}/{path.name}", read_yaml(path) or {}, {}
    if not isinstance(entries, dict):
        raise MotionLabError(f"The arms {where} are a {type(entries).__name__}.", fix="Write lines 'arm: {label: ..., colour: ...}'.")
    for name, entry in entries.items():
        one = from_values(Look, entry, f"arm '{name}' {where}")
        out[str(name)] = one.label, one.colour and one_of(one.colour, PALETTE, f"colour of arm '{name}' {where}:")
    return out


# ---------------------------------------------------------------------------------------------- metrics
@dataclass(frozen=True)
class Metric:
    """A column. label: lines for the head of a panel. unit: of its values. better: "more", "less", or "" for neither."""

    label: str
    unit: str = ""
    better: str = ""

    def axis(self, word: str = "better", between: str = "   ") -> str:
        """What the axis below a panel says: unit, and an arrow the way that is better."""
        arrow = {"more": f"{word} →", "less": f"← {word}", "": ""}[self.better]
        return between.join(filter(None, (self.unit, arrow)))

    @property
    def line(self) -> str:
        """Label and unit in one line, for an axis of its own."""
        return self.label.replace("\n", " ") + (f" ({self.unit})" if self.unit else "")


SHARE, PX = "share of clips", "pixels"
DETECTED = {"same_leg_gait": "same leg\nsteps twice", "missing_part": "missing part", "extra_part": "extra part",
            "interpenetration": "parts pass\nthrough", "rotation_period": "unsteady\nrotation",
            "heading_error": "against its\nheading", "frozen": "frozen", "appearing_vanishing": "appears or\nvanishes"}
METRICS: dict[str, Metric] = {
    # motion fidelity and scores without a reference
    "mf_paper": Metric("MF (paper)", "score (1: the same motion)"),
    "mf_release": Metric("MF (release)", "score (1: the same motion)"),
    "mf_dmt": Metric("DMT", "score (1: the same motion)"),
    "dynamic_top5": Metric("dynamic\ndegree\n(top 5 %)", "pixels per sampled step\nmore motion →"),
    "smoothness": Metric("smoothness\n(VBench-\nstyle)", "score", "more"),
    "vtg_smoothness": Metric("smoothness\n(VTG, 1-G)", "score", "more"),
    "roughness": Metric("consistency\n(AID; less\nis better)", "mean RMSE of neighbours", "less"),
    # what a clip shows, and how whole its subject is
    "look_ok": Metric("look as asked", SHARE, "more"),
    "move_ok": Metric("motion and heading\nas asked", SHARE, "more"),
    **{f"look_ok_{k}": Metric(f"look as asked,\nevaluator {k}", SHARE, "more") for k in (0, 1)},
    **{f"move_ok_{k}": Metric(f"motion and heading\nas asked, evaluator {k}", SHARE, "more") for k in (0, 1)},
    "structure": Metric("structure error\n(palette; judges\nnothing)", "sum of terms", "less"),
    "structure_mean": Metric("structure error,\nmean of both readers", "sum of terms", "less"),
    "articulation": Metric("structure error\n(palette; judges\nnothing)", "sum of terms", "less"),
    **{f"{name}_{k}": Metric(f"structure error\n(evaluator {k})", "sum of terms", "less") for name in ("structure", "articulation")
       for k in (0, 1)},
    **{f"broken_{name}": Metric(label, SHARE, "less") for name, label in DETECTED.items()},
    **{f"failure_{name}": Metric(label, "detector's score", "less") for name, label in DETECTED.items()},
    "part_error_palette": Metric("part error\n(palette)", PX, "less"),
    **{f"part_error_{k}": Metric(f"part error\n(evaluator {k})", PX, "less") for k in (0, 1)},
    # how a clip moves and looks
    "speed": Metric("speed", "px per sampled step"),
    "dynamic_degree": Metric("dynamic degree", SHARE),
    "smoothness_matched": Metric("smoothness at\nequal speed", "score", "more"),
    "vbench_appearance": Metric("VBench-style\nAppearance (part)", "of 100", "more"),
    "vbench_motion": Metric("VBench-style\nMotion", "of 100", "more"),
    "flow_relative": Metric("flow end-point\nerror / speed", "", "less"),
    "psnr_true": Metric("likeness to the\nlearned clip", "dB", "more"),
    # was a motion transferred (metrics.transfer), by two learned readers
    **{f"{name}_{k}": Metric(f"{label},\nreader {k}", unit, "more") for k in (0, 1) for name, label, unit in (
        ("m", "motion", "0: caption alone,\n1: the true clip"), ("mf", "motion fidelity", "1: the same"),
        ("edit", "look as asked", "share, less leak"), ("score", "score", "mean of motion\nand look"),
        ("route", "the source's way", "1: the same,\n0: standing still"), ("route_reversed", "its way backwards", "1: the same"))},
    **{f"route_{k}_b": Metric(f"the source's way,\nanother body,\nreader {k}", "1: the same,\n0: standing still", "more") for k in (0, 1)},
    **{f"jump_{k}": Metric(f"jump,\nreader {k}", "body sizes per frame squared", "less") for k in (0, 1)},
    "leak": Metric("clutter of the\nsource", "0: none, 1: all of it", "less"),
    "tc": Metric("temporal\nconsistency", "of 100", "more"),
    "diversity": Metric("diversity of\ntwo noises", "1 - cosine", "more"),
    "step": Metric("steps of tuning"),
    "cosine": Metric("cosine from one latent frame to the next"),
    "high": Metric("share of the change at high frequencies"),
    "fisher": Metric("Fisher's ratio", "", "more"),
    "share_over_area": Metric("points on feet, forearms,\ntails / their area", "1: as even sampling", "more"),
    # votes of the instruments
    "text": Metric("text", "share of prompts won"),
    "quality": Metric("quality", "share of prompts won"),
    "motion": Metric("motion", "share of prompts won"),
    # probes and features
    "part_accuracy": Metric("part identity", "balanced share right", "more"),
    "colour_ok": Metric("colour", "share right", "more"),
    "on_track": Metric("along the exact track"),
    "same_place": Metric("at the place it left"),
    "other_point": Metric("another point of the subject"),
    "auc": Metric("AUC, foreground against background"),
    "variance": Metric("variance over time / over all tokens"),
    # where places are found again (metrics.correspondence), masks followed, states probed
    "hit": Metric("found again,\nwhere something moves", "share of cells", "more"),
    "hit_plain": Metric("found again,\none subject", "share of moving cells", "more"),
    "hit_pillar": Metric("found again,\nbehind a pillar", "share of moving cells", "more"),
    "hit_pair": Metric("found again,\nbeside a look-alike", "share of moving cells", "more"),
    "still_kept": Metric("kept, where\nnothing moves", "share of cells", "more"),
    "own_place": Metric("said to stay,\nwhere something moves", "share of cells", "less"),
    "kl": Metric("KL from exact\ntransport", "nats", "less"),
    "entropy": Metric("entropy of\nthe window", "share of the largest"),
    "border": Metric("on the window's\nborder", "share of cells", "less"),
    "reached": Metric("lands inside the window", "share of what cells show", "more"),
    "cross_share": Metric("share of the\ncross terms", "of the variation"),
    "repeated": Metric("teacher's error\nrepeated", "share of its errors", "less"),
    "limb": Metric("which limb", "balanced share right", "more"),
    "rotation": Metric("how fast it turns", "variance explained", "more"),
    "iou": Metric("mask", "IoU with the exact one", "more"),
    "iou_after": Metric("mask after\nit was hidden", "IoU with the exact one", "more"),
    "right": Metric("the right one\nof two", SHARE, "more"),
    "loss_subject": Metric("held-out loss on\nthe subject", "squared error", "less"),
    **{f"m{k}": Metric(f"Motion Score,\nreading M{k}", "of 100", "more") for k in (1, 2, 3)},
    "edge": Metric("contrast at the\nsubject's border", "1: a sharp edge", "more"),
    "variation": Metric("variation of the\ngradient's norm", "deviation / mean", "less"),
    "grad_norm": Metric("gradient's norm"),
    "log_ratio": Metric("log ratio of distances", "0: equal", "less"),
    "step_seconds": Metric("a training step", "seconds", "less"),
    "sample_seconds": Metric("a sampling step", "seconds", "less"),
    "tau": Metric("temperature tau"),
    "block": Metric("block"),
    **{f"length_variation_{k}": Metric(f"length of limbs\nvaries, reader {k}", "share", "less") for k in (0, 1)},
    # what lies between two given frames
    "generated": Metric("generated"),
    "crossfade": Metric("cross-fade of the ends"),
    "still": Metric("first frame repeated"),
    "rms_gain": Metric("RMS error, generated\nminus cross-fade", "grey levels", "less"),
    "pose_gain": Metric("pose error, generated\nminus cross-fade", PX, "less"),
    # transitions between two given frames (metrics.transitions)
    "edge": Metric("edge of the\nmiddle", "share of the ends',\n0.5 a ghost, 1 crisp", "more"),
    "jump": Metric("largest step", "share of all steps,\n1/8 even, 1 a cut", "less"),
    "edge_fall": Metric("edge lost\nper frame", "share of the ends' per frame", "less"),
    "flicker": Metric("flicker of the\nbackground", "grey levels", "less"),
    "flicker_excess": Metric("flicker above\nreconstructions", "grey levels", "less"),
    "psnr_ends": Metric("ends kept", "dB", "more"),
    "grey": Metric("distance to\nthe true clip", "grey levels", "less"),
    "ppl": Metric("path length", "M x sum of steps", "less"),
    "smooth": Metric("smoothness\n(1 - Gini)", "score", "more"),
    "consistency": Metric("mean step", "distance"),
    "fid": Metric("FID of the ends,\nper pair", "squared distance", "less"),
    "alignment": Metric("alignment", "cosine", "more"),
    "lora_gain": Metric("what its LoRA takes\nof a picture's loss", "share", "more"),
    **{f"{name}_{k}": Metric(f"{label},\nreader {k}", unit, better) for k in (0, 1) for name, label, unit, better in (
        ("pose", "limbs off the truth", PX, "less"), ("order_gap", "order gap", PX, "less"), ("order_cost", "order cost", PX, "less"),
        ("mix", "mixture of species", "0 one of them, 1 even", "more"), ("tcr", "transition complete", SHARE, "more"),
        ("tc_score", "TC-Score", "score", "more"), ("species_ok", "species as named", SHARE, "more"))},
    "error": Metric("squared error of the velocity", "", "less"),
    **{name: Metric(label, "squared error of the velocity", "less") for name, label in (
        ("forward", "forward branch"), ("backward", "second branch"), ("fused", "mean of both"))},
    "apart": Metric("both branches\napart", "squared distance"),
    "frame": Metric("frame"),
    # losses and attention, along noise levels, blocks and frames
    "gap": Metric("relative loss gap"),
    "gap_early": Metric("relative loss gap,\nt < 0.33"),
    "gap_middle": Metric("relative loss gap,\nt 0.33 to 0.67"),
    "gap_late": Metric("relative loss gap,\nt > 0.67"),
    "kept": Metric("share kept of the clip"),
    "follows": Metric("share of clips that follow it"),
    "mass": Metric("attention mass per frame"),
    "radius": Metric("mean distance in tokens"),
    "near": Metric("share of the mass within 3 x 3"),
    "t": Metric("t (noise to clean)"),
    "t_mid": Metric("t (noise to clean)"),
    "step_mid": Metric("sampling step of 100 (noise to clean)"),
    "offset": Metric("latent frames away"),
    # columns that claims name and no figure shows
    "dynamic": Metric("dynamic degree"),
    "vtg_undefined": Metric("smoothness (VTG) has no value"),
    "relative": Metric("error, of that of predicting no motion"),
    "caught": Metric("share of lost points found"),
    "part_error": Metric("part error (palette)"),
    "cells": Metric("error in cells of a latent frame"),
    "broken": Metric("clips that fail", SHARE, "less"),
    "fall": Metric("fall of attention mass with distance in time"),
    "generated": Metric("error of the generated middle", "grey levels"),
    "crossfade": Metric("that of a cross-fade", "grey levels"),
    "pose_generated": Metric("pose error of the generated middle", PX),
    "pose_crossfade": Metric("that of a cross-fade", PX),
    "loss": Metric("loss", "squared error of the velocity"),
    "loss_original": Metric("loss on the original"),
    "loss_shuffled": Metric("loss on shuffled frames"),
    "motion_original": Metric("loss of the motion half on the original"),
    "motion_shuffled": Metric("loss of the motion half on shuffled frames"),
    "changed": Metric("change of the output"),
    "early": Metric("size of the motion direction early"),
    "late": Metric("size late"),
    "gap_shuffled": Metric("relative loss gap of shuffled frames"),
    "half_of_plain": Metric("half of that without clutter"),
    "first_motion": Metric("shows the first prompt's motion", SHARE),
    "then_motion": Metric("shows the second prompt's motion", SHARE),
    **{f"{name}_{k}_{depth}": Metric(f"{label}, {away} away" + (f", {depth} blocks" if depth != "all" else ""))
       for name, label in (("mass", "attention mass per frame"), ("radius", "mean distance in tokens"),
                           ("near", "share of the mass within 3 x 3"), ("there", "mass where the content went"),
                           ("here", "mass at the same place"), ("opposite", "mass opposite of where it went"))
       for k, away in ((1, "one frame"), (2, "two frames")) for depth in ("all", "early", "middle", "late")},
    "pca3_foreground_track_all": Metric("change of the subject's features along its tracks, three components"),
    "pca3_background_fixed_all": Metric("change of the background's features at fixed places, three components"),
    "auc_all": Metric("AUC, foreground against background"),
    "auc_shuffled_all": Metric("AUC on permuted labels"),
    **{f"auc_pca3{name}_all": Metric(f"AUC of three components{label}") for name, label in (
        ("", ""), ("_worst", ", worst frame"), ("_smoothed", ", smoothed in time"),
        ("_smoothed_worst", ", smoothed in time, worst frame"))},
    "fisher_worst": Metric("Fisher's ratio, worst frame"),
    "gain_foreground": Metric("gain of the cosine along the subject's tracks"),
    "gain_background_half": Metric("gain on the background, less half of the subject's"),
    **{f"{name}_hard_minus_easy_{k}": Metric(f"{label}, hard minus easy bodies, reader {k}")
       for k in (0, 1) for name, label in (("m", "motion"), ("edit", "look as asked"))},
    "leak_hard_minus_easy": Metric("clutter of the source, hard minus easy bodies"),
    "in_order": Metric("share of doses in order"),
    "trained_bytes": Metric("bytes that are trained"),
}


def metric(column: str) -> Metric:
    """How a column is called; an unknown one by its own name."""
    return METRICS.get(column) or Metric(column)
