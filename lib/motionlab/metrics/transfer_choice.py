"""Which draws of `data.transfer` are tasks: accepted on truth alone, so that no generator has a say in what it is judged on.

A draw is a task where every part of every subject stays in view, and where what the caption says does not already give the
motion away: eight other scenes of the source's caption must score little against it. `choose` finds the draws that
`reproductions/protocol.yaml` lists; `tests/test_transfer.py` finds them again.
"""
from __future__ import annotations

import numpy as np

from motionlab.core.errors import MotionLabError
from motionlab.core.protocol import split_seeds
from motionlab.data.transfer import DRAW, TIERS, TransferTask, draw_seed, draw_task, part_middles
from motionlab.metrics.motion import mf_paper
from motionlab.models.evaluator import limb_groups
from motionlab.world import Scene
from motionlab.world.puppets import species as anatomy_of

MARGIN = 0.0            # frame heights between the middle of any part and the frame's edge
GIVEN_AWAY = 0.5        # mean mf_paper of the caption's redraws above which the caption says too much of the motion
TRIES = 12              # draws of a tier before its route is given up


def choose(split: str, offset: int, routes: int) -> list[list[int]]:
    """Numbers of the accepted draws (`data.transfer.draw_seed`), a list per route: of the route, its easy, medium and hard subject.

    Raises:
        MotionLabError: the split ends before so many routes are found.
    """
    chosen, out = {"split": split, "offset": offset}, []
    numbers = iter(range((len(split_seeds(split, None)) - offset) // DRAW))
    while len(out) < routes:
        route = next(numbers, None)
        if route is None:
            raise MotionLabError(f"Split '{split}' ends before {routes} routes are found: {len(out)}.", fix="Ask for fewer.")
        found = _subjects(chosen, len(out), route, numbers)
        if found:
            out.append([route, *found])
    return out


def _subjects(chosen, index, route, numbers) -> list[int] | None:
    """The first fitting draw of every tier, or None where a tier has none within `TRIES`."""
    found = []
    for tier in TIERS:
        tried = (n for _, n in zip(range(TRIES), numbers))
        fit = next((n for n in tried if not unfit(draw_task("", index, tier, draw_seed(chosen, route), draw_seed(chosen, n)))), None)
        if fit is None:
            return None
        found.append(fit)
    return found


def unfit(task: TransferTask) -> str:
    """Why a draw is no task; "" where it is one."""
    scenes = [task.source, *(t.scene for t in task.targets)]
    if min(margin(scene) for scene in scenes) < MARGIN:
        return "out of view"
    return "" if given_away(task) <= GIVEN_AWAY else "given away by its caption"


def margin(scene: Scene, frames: int = 17) -> float:
    """Least distance in frame heights between the middle of any part and the edge of a square frame; negative outside."""
    at = np.stack(list(part_middles(scene.actors[0], frames, scene.duration).values()))
    return float(min(at.min(), 1 - at.max()))


def given_away(task: TransferTask, frames: int = 17) -> float:
    """Mean `mf_paper` of the caption's redraws against the source."""
    truth = posed_limbs(task.source, frames)
    return float(np.mean([mf_paper(posed_limbs(scene, frames), truth, (1, 1)) for scene in task.redraws()]))


def posed_limbs(scene: Scene, frames: int = 17) -> np.ndarray:
    """Middles (f, limbs, 2) of the first subject's limbs in frame heights, as `data.transfer.part_middles`."""
    actor = scene.actors[0]
    groups, middles, parts = limb_groups(actor.species), part_middles(actor, frames, scene.duration), anatomy_of(actor.species).parts
    return np.stack([np.mean([middles[p.name] for p in parts if p.group in names], axis=0) for names in groups.values()], 1)
