"""SAM2VideoX as a method: a block learns where a tracker finds each place again (Local Gram Flow). Equations: papers/sam2videox."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import nn

from motionlab.core.errors import MotionLabError, one_of
from motionlab.correlation import RADIUS, local_correlation, unpacked
from motionlab.data.correlations import FLOWS, PLACES
from motionlab.data.seen import TEACHERS, TRACKERS, on_grid
from motionlab.data.sidecars import Sidecar
from motionlab.methods.tapped import Tapped
from motionlab.papers.sam2videox import gram_flow as paper
from motionlab.papers.sam2videox.projectors import GROUP, PROJECTORS, make_projector

TAUS = (0.02, 0.05, 0.1, 0.2)


@dataclass(frozen=True)
class SAM2VideoX(Tapped):
    """teacher: of `data.seen.TEACHERS`, or of flow: "exact", "dis". loss_of, fusion, tau, alpha, radius, projector: of
    `papers.sam2videox`; tau 0: of `TAUS` the nearest to exact transport on dev clips, 0.1 where there is none. grid: places; (0, 0): the
    tokens'. out: channels of the projection, the teacher's own where features themselves are compared. where: "subject": the places near
    it alone. noise, in cells, and other: exact targets displaced, targets of another clip. reverse_backward: A5. checkpoint, boxes,
    detector, skip_prompt_pairs: of the teacher and its prompts. The rest as of `Tapped`; the card's lambda is weight 0.5, with tau 0.1."""

    name: ClassVar[str] = "sam2videox"

    teacher: str = "sam2"
    loss_of: str = "lgf_kl"
    fusion: str = "lgf_logit"
    tau: float = 0.0
    alpha: float = paper.ALPHA
    radius: int = RADIUS
    projector: str = "latent_stride"
    out: int = 256
    grid: tuple[int, int] = (0, 0)
    where: str = "all"
    noise: float = 0.0
    other: bool = False
    reverse_backward: bool = False
    checkpoint: str = ""
    boxes: str = ""
    detector: str = ""
    skip_prompt_pairs: bool = False

    def __post_init__(self):
        super().__post_init__()
        for name, known in (("teacher", (*FLOWS, *TEACHERS)), ("loss_of", paper.LOSSES), ("fusion", paper.FUSIONS),
                            ("projector", PROJECTORS), ("where", PLACES)):
            one_of(getattr(self, name), known, f"{name} of {self.name}:")
        if self.tau < 0 or self.radius < 0 or not 0 <= self.alpha <= 1 or self.noise < 0 or self.out < 1:
            raise MotionLabError(f"tau {self.tau}, radius {self.radius}, alpha {self.alpha}, noise {self.noise}, out {self.out}: one is "
                                 "out of range.", fix="tau is above 0 (0: chosen), alpha a share, out 1 or more, the others 0 or more.")
        flows, one_way = self.teacher in FLOWS, self.loss_of.startswith("feat") or self.fusion.endswith("only")
        if flows and self.loss_of != "lgf_kl" or self.noise and not flows or self.skip_prompt_pairs and (flows or one_way):
            said = ("teacher", "loss_of", "fusion", "noise", "skip_prompt_pairs")
            raise MotionLabError(", ".join(f"{name} {getattr(self, name)}" for name in said) + " do not go together.",
                                 fix="Flow takes loss_of lgf_kl, and noise displaces flow alone; skipped pairs need two directions fused.")

    # ------------------------------------------------------------------ targets
    def targets_of(self) -> tuple[Sidecar, ...]:
        if self.teacher in FLOWS:
            return (self._transport("target", where=self.where, noise=self.noise, other=self.other, flow=self.teacher),)
        near = (self._transport("near", where=self.where),) if self.where != "all" else ()
        if self.loss_of.startswith("feat"):
            return (self._of_teacher("features"), *near)
        how = "feature" if self.fusion == "feature" else "reversed" if self.reverse_backward else "both"
        return (self._of_teacher("correlation", how=how, radius=self.radius, skip_prompt_pairs=self.skip_prompt_pairs), *near)

    def judged(self) -> tuple[Sidecar, ...]:
        return () if self.tau or self.teacher in FLOWS or self.loss_of != "lgf_kl" else (self._transport("transport"),)

    def _transport(self, key, **settings):
        return Sidecar("transport", self._given(radius=self.radius, **settings), key)

    def _of_teacher(self, kind, **settings):
        settings |= {"boxes": self.boxes, "detector": self.detector} if self.teacher in TRACKERS else {}
        said = self._given(other=self.other, grid=self.grid, checkpoint=self.checkpoint, **settings)
        return Sidecar(kind, {"teacher": self.teacher} | said, "target")

    def _given(self, **settings):
        """Those that say anything: a sidecar's folder is named by its settings."""
        usual = {"every": GROUP, "radius": RADIUS, "where": "all", "grid": (0, 0), "how": "both", "flow": "exact"}
        settings["every"] = GROUP if self.projector == "latent_stride" else 1
        return {name: value for name, value in settings.items() if value and value != usual.get(name)}

    def chosen(self, batch: Mapping[str, torch.Tensor], grid: tuple[int, int]) -> SAM2VideoX:
        """With the temperature at which KL(exact transport || target) is least on these clips."""
        if "transport" not in batch:
            return self if self.tau else replace(self, tau=paper.TAU)
        p, known = self._known(batch["transport"], grid, 0.0)
        logits, seen = self._known(batch["target"], grid)
        far = {tau: float(paper.transport_kl(p, self._fused(logits, tau), known & seen.all(1), tau).mean()) for tau in TAUS}
        return replace(self, tau=min(far, key=far.get))

    def target_maps(self, batch: Mapping[str, torch.Tensor], grid: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        if self.loss_of.startswith("feat"):
            return super().target_maps(batch, grid)
        if self.teacher in FLOWS:
            return self._known(batch["target"], grid, 0.0)
        maps, known = self._known(batch["target"], grid)
        return (self._fused(maps) / (self.tau or paper.TAU)).softmax(-1), known.all(1)

    def student_maps(self, said: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        return (local_correlation(on_grid(said.float(), grid), self.radius) / (self.tau or paper.TAU)).softmax(-1)

    def make_head(self, width: int) -> nn.Module:
        return make_projector(self.projector, width, self.out)

    def own_loss(self, head: nn.Module, hidden: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Of each clip (b,): how far the projected features' Local Gram Flow is from the teacher's, or they from its features."""
        grid = tuple(self.grid) if any(self.grid) else tuple(hidden.shape[2:4])
        student, target = on_grid(head(hidden).float(), grid), batch["target"]
        near = None if "near" not in batch else self._known(batch["near"], grid)[1]
        if self.loss_of.startswith("feat"):
            return paper.feature_loss(target.nan_to_num(), student, self.loss_of, _both(target.isfinite().all(-1), paper.of_frames(near)))
        maps = local_correlation(student, self.radius)
        if self.teacher in FLOWS:
            p, known = self._known(target, grid, 0.0)
            return paper.transport_kl(p, maps, known, self.tau or paper.TAU)
        values, known = self._known(target, grid)
        where = _both(known.all(1), near)
        if not self.reverse_backward:
            return self._far(self._fused(values), maps, where)
        back = local_correlation(student, self.radius, reverse=True)
        return self.alpha * self._far(values[:, 0], maps, where) + (1 - self.alpha) * self._far(values[:, 1], back, where)

    def _far(self, target, maps, where):
        return paper.lgf_kl(target, maps, self.tau or paper.TAU, where) if self.loss_of == "lgf_kl" else paper.lgf_l2(target, maps, where)

    def _known(self, values, grid, outside=paper.OUTSIDE):
        """(maps, (..., h, w) bool): a sidecar's maps with what lies outside the frame, and the places of which it says something."""
        maps = unpacked(values, grid, self.radius, outside)
        return maps.nan_to_num(), maps[..., maps.shape[-1] // 2].isfinite()

    def _fused(self, maps, tau=0.0):
        """Maps (b, k, t - 1, h, w, n) of one or both directions as one; of reversed pairs the forward pass's."""
        if maps.shape[1] == 1 or self.reverse_backward:
            return maps[:, 0]
        return paper.fuse_maps(maps[:, 0], maps[:, 1], self.fusion, self.alpha, tau or self.tau or paper.TAU)


def _both(one, other):
    return one if other is None else one & other
