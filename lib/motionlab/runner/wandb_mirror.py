"""Mirror a finished run to Weights & Biases; the local `log.jsonl` and `result.json` stay the record.

`WANDB_MODE=online` or `offline` asks for it, `disabled` forbids it. Without the variable a run is mirrored online only
where there is a GPU and a key (`WANDB_API_KEY`, or an entry in `.netrc`), and never at tier smoke.
"""

from __future__ import annotations

import contextlib
import json
import netrc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SPELLINGS = {"online": "online", "run": "online", "shared": "online", "offline": "offline", "dryrun": "offline"}


def mode(tier: str) -> str | None:
    """`online`, `offline`, or None for no mirror."""
    if os.environ.get("WANDB_DISABLED", "").lower() in ("1", "true", "yes"):
        return None
    asked = os.environ.get("WANDB_MODE", "").lower()
    if asked:
        return SPELLINGS.get(asked)
    return "online" if tier != "smoke" and has_key() and has_gpu() else None


def has_key() -> bool:
    """Is there a W&B key here, in the environment or in `.netrc`? Never reads further than that."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("://")[-1].strip("/")
    for name in (os.environ.get("NETRC"), "~/.netrc", "~/_netrc"):
        with contextlib.suppress(OSError, netrc.NetrcParseError):
            if name and netrc.netrc(os.path.expanduser(name)).authenticators(host):
                return True
    return False


def has_gpu() -> bool:
    """True where torch sees a CUDA device (imports torch: asked last)."""
    import torch

    return torch.cuda.is_available()


def mirror(run_dir: Path, root: Path, how: str) -> str:
    """Log parameters, verdicts, estimates, notes, figures and videos of a finished run; return where they went.

    Args:
        run_dir: holds `result.json` and `figures/`.
        how: `online` or `offline`; an offline run lies under `WANDB_DIR` (default: `runs/`) until `wandb sync`.

    Raises:
        Exception: anything that wandb raises; the caller treats it as a note.
    """
    import wandb

    result = json.loads((run_dir / "result.json").read_text(encoding="utf-8"))
    folder = Path(os.environ.get("WANDB_DIR") or Path(root, "runs"))
    folder.mkdir(parents=True, exist_ok=True)
    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", "motionlab"),
        name=f"{result['notebook']}-{result['tier']}",
        mode=how,
        group=result.get("paper"),
        job_type=result["tier"],
        dir=str(folder),
        config=_config(result),
        settings=wandb.Settings(silent=True, console="off", x_disable_stats=True, init_timeout=30),
    )
    try:
        run.log({**dict(_numbers(result)), **dict(_pictures(result, run_dir))})
        run.summary.update(dict(_verdicts(result)))
    finally:
        place = run.url if how == "online" and run.url else str(Path(run.dir).parent)
        run.finish()
    return place


def _config(result: dict[str, Any]) -> dict[str, Any]:
    return {
        "tier": result["tier"],
        "notebook": result["notebook"],
        **result.get("params", {}),
        "environment": result.get("environment", {}),
    }


def _numbers(result: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Estimate and interval of every judged part, every number among the notes, and the seconds of the run."""
    for claim, record in result.get("claims", {}).items():
        parts = record.get("parts", [])
        for index, part in enumerate(parts):
            name = claim if len(parts) == 1 else f"{claim}/{index}"
            low, high = part.get("ci95") or (None, None)
            named = {"estimate": part.get("estimate"), "ci_low": low, "ci_high": high, "n": part.get("n")}
            yield from ((f"{name}/{key}", value) for key, value in named.items() if _is_number(value))
    yield from ((f"note/{key}", value) for key, value in result.get("notes", {}).items() if _is_number(value))
    if _is_number(result.get("seconds")):
        yield "seconds", result["seconds"]


def _verdicts(result: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for claim, record in result.get("claims", {}).items():
        yield f"verdict/{claim}", record.get("verdict", "not run")


def _pictures(result: dict[str, Any], run_dir: Path) -> Iterator[tuple[str, Any]]:
    """Figures and videos as they lie in the run; encoded already, so that wandb needs no encoder of its own."""
    import wandb

    for entry in result.get("figures", []):
        path = run_dir / "figures" / entry["file"]
        if path.is_file():
            yield f"figure/{path.stem}", wandb.Image(str(path), caption=entry.get("caption"))
    for entry in result.get("videos", []):
        path = run_dir / "figures" / entry["file"]
        if path.is_file():
            yield f"video/{path.stem}", wandb.Video(str(path), format="mp4", caption=entry.get("caption"))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
