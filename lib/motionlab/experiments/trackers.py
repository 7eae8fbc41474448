"""Which tracker a notebook looks through, and what it sees of prompts' true clips."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from motionlab.core.config import from_values
from motionlab.core.errors import MotionLabError
from motionlab.core.paths import repo_root
from motionlab.core.yamls import read_yaml
from motionlab.correlation import local_correlation, unpacked
from motionlab.data.correlations import draw_shown, seen
from motionlab.data.prompts import Prompt, load_prompts
from motionlab.data.sidecars import Sidecar, encoded
from motionlab.data.sources import Listed
from motionlab.methods.tapped import Tapped
from motionlab.metrics.correspondence import correspondence
from motionlab.models.pipe import Pipe
from motionlab.models.shipped import shipped

SHIPPED, EVERY = "sam2", 4
SETTINGS = "reproductions/testbed/pretrain.yaml"


def tracker_file(tier: str, folder: Path) -> tuple[str, str]:
    """(checkpoint for `data.seen`, what it is): the shipped small SAM2; where there is none, and at tier smoke alone, one of its sizes with
    random weights, written below `folder`: it proves that code runs and knows nothing.

    Raises:
        MotionLabError: none is shipped; random weights are wanted and the package is not installed.
    """
    try:
        return str(shipped(SHIPPED)), "the shipped small SAM2"
    except MotionLabError:
        if tier != "smoke":
            raise
    from motionlab.teachers.sam2_build import Sam2Config, build_sam2
    from motionlab.teachers.sam2_files import write_small

    config = from_values(Sam2Config, read_yaml(repo_root() / SETTINGS)["sam2"]["model"], f"sam2 of {SETTINGS}")
    path = write_small(Path(folder) / "untrained_sam2.safetensors", build_sam2(config), config)
    return str(path), "a SAM2 with random weights (tier smoke)"


def shown_prompts(tier: str, n: int, kind: str = "plain", judged: bool = False) -> list[Prompt]:
    """True clips that a notebook looks at: of `dev`, of `test` where a claim is judged on them; of `examples` at tier smoke, which must not
    look at what judges."""
    return load_prompts(f"{'examples' if tier == 'smoke' else 'test' if judged else 'dev'}/{kind}", n)


def fitting_prompts(tier: str, n: int) -> list[Prompt]:
    """True clips that heads are fitted on: other ones than those of `shown_prompts`."""
    return load_prompts("examples/pillar" if tier == "smoke" else "fine_tuning/plain", n)


def matched(prompts: Sequence[Prompt], pipe: Pipe, method: Tapped, taus: Sequence[float] = ()) -> list[dict]:
    """Rows {item, arm, seed, kind, tau, hit, kl, ...} of what a method's target says of the prompts' true clips near their subjects
    (`metrics.correspondence`), at each temperature (none: the method's own). The arm is the method's teacher.
    """
    source = Listed([p.clip(frames=pipe.frames) for p in prompts])
    batch = encoded(source, (*method.targets_of(), Sidecar("transport", {"where": "subject"}, key="truth")), pipe)
    grid, out = (pipe.size[0] // pipe.cell, pipe.size[1] // pipe.cell), []
    truth = unpacked(batch["truth"], grid, outside=0.0)
    known, truth = truth.isfinite().all(-1), truth.nan_to_num()
    for tau in taus or (method.tau,):
        p, said = replace(method, tau=tau).target_maps(batch, grid)
        found = correspondence(p, truth, known & said)
        out += [{"item": prompt.id, "arm": method.teacher, "seed": 0, "kind": prompt.kind, "tau": tau}
                | {name: float(values[i]) for name, values in found.items()} for i, prompt in enumerate(prompts)]
    return out


def one_place(prompt: Prompt, pipe: Pipe, teachers: Sequence[str], checkpoint: str, tau: float = 0.1) -> tuple:
    """(frames (2, h, w, 3), place (y, x), {name: window (n, n)}) of one clip: the subject's place that goes furthest between frames 0 and
    `EVERY`, and where each teacher's features find it again; "exact" is the truth.

    Raises:
        MotionLabError: nothing of the subject moves by a cell.
    """
    clip, size = prompt.clip(frames=pipe.frames), (pipe.size[0] // pipe.cell, pipe.size[1] // pipe.cell)
    truth = unpacked(Sidecar("transport", {"where": "subject"}).encode(
        Sidecar("transport", {"where": "subject"}).draw(Listed([clip]), 0)[None], pipe), size, outside=0.0)[0, 0]
    side = int(truth.shape[-1] ** 0.5)
    reach = torch.stack([(torch.arange(side ** 2) // side - side // 2), (torch.arange(side ** 2) % side - side // 2)], -1).abs().amax(-1)
    moved = (truth.nan_to_num() * reach).sum(-1) * truth.isfinite().all(-1)
    if not moved.max() >= 1:
        raise MotionLabError(f"Nothing of '{prompt.id}' moves by a cell between frames 0 and {EVERY}.", fix="Choose another prompt.")
    y, x = (int(v) for v in np.unravel_index(int(moved.argmax()), size))
    windows = {"exact": truth[y, x].view(side, side).numpy()}
    for name in teachers:
        shown = draw_shown(Listed([clip]), 0, name, EVERY)[None]
        found = seen(shown, name, checkpoint if name.startswith("sam2") else "").at(size)
        maps = local_correlation(found.forward[:, :2])[0, 0, y, x]
        windows[name] = (maps / tau).softmax(-1).view(side, side).numpy()
    return clip.frames[[0, EVERY]], (y, x), windows


def window_rows(prompts: Sequence[Prompt], pipe: Pipe, steps: Sequence[int] = (1, EVERY),
                radii: Sequence[int] = (1, 2, 3, 4, 5)) -> list[dict]:
    """Rows {item, arm "every <k>", seed, radius, reached, moving}: share of what the subject's cells show that lands in a window of this
    radius, frames k apart, and the share of cells whose exact arg-max is another cell."""
    out, largest = [], max(radii)
    size, side = (pipe.size[0] // pipe.cell, pipe.size[1] // pipe.cell), 2 * max(radii) + 1
    index = torch.arange(side ** 2)
    reach = torch.maximum((index // side - largest).abs(), (index % side - largest).abs())
    for prompt in prompts:
        source = Listed([prompt.clip(frames=pipe.frames)])
        for every in steps:
            drawn = Sidecar("transport", {"where": "subject", "every": every, "radius": largest}).draw(source, 0)
            maps = unpacked(torch.from_numpy(drawn), size, largest, outside=0.0)
            cells = maps[maps.isfinite().all(-1)]
            if not len(cells):
                continue
            moving = float((cells.argmax(-1) != side ** 2 // 2).double().mean())
            out += [{"item": prompt.id, "arm": f"every {every}", "seed": 0, "radius": r, "moving": moving,
                     "reached": float(cells[:, reach <= r].sum(-1).mean())} for r in radii]
    return out
