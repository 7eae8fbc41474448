"""Mirror a finished run to Weights & Biases; the local `log.jsonl` and `result.json` stay the record.

`WANDB_MODE=online` or `offline` asks for it, `disabled` forbids it. Without the variable a run is mirrored online only
where there is a GPU and a key (`WANDB_API_KEY`, or an entry in `.netrc`), and never at tier smoke.
"""
from __future__ import annotations

import contextlib
import netrc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from motionlab.core.extras import demand_extra
from motionlab.ledger.publishing import media_files, read_result

SPELLINGS = {"online": "online", "run": "online", "shared": "online", "offline": "offline", "dryrun": "offline"}


def mode(tier: str) -> str | None:
    """`online`, `offline`, or None for no mirror."""
    if os.environ.get("WANDB_DISABLED", "").lower() in ("1", "true", "yes"):
        return None
    if asked := os.environ.get("WANDB_MODE", "").lower():
        return SPELLINGS.get(asked)
    return "online" if tier != "smoke" and has_key() and has_gpu() else None


def has_key() -> bool:
    """Is there a W&B key here, in the environment or in `.netrc`? Never reads further than that."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("://")[-1].strip("/")
    for name in filter(None, (os.environ.get("NETRC"), "~/.netrc", "~/_netrc")):
        with contextlib.suppress(OSError, netrc.NetrcParseError):
            if netrc.netrc(os.path.expanduser(name)).authenticators(host):
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
    demand_extra("wandb", "The mirror", "wandb")
    import wandb

    result = read_result(run_dir)
    folder = Path(os.environ.get("WANDB_DIR") or Path(root, "runs"))
    folder.mkdir(parents=True, exist_ok=True)
    config = {name: result.get(name) for name in ("tier", "notebook", "environment")} | result.get("params", {})
    with wandb.init(project=os.environ.get("WANDB_PROJECT", "motionlab"), name=f"{result['notebook']}-{result['tier']}", mode=how,
                    group=result["paper"], job_type=result["tier"], dir=str(folder), config=config,
                    settings=wandb.Settings(silent=True, console="off", x_disable_stats=True, init_timeout=30)) as run:
        run.log(dict(_numbers(result)) | dict(_pictures(result, run_dir / "figures")))
        run.summary.update({f"verdict/{claim}": record["verdict"] for claim, record in result["claims"].items()})
        return run.url if how == "online" and run.url else str(Path(run.dir).parent)


def _numbers(result: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Estimate and interval of every judged part, every number among the notes, and the seconds of the run."""
    found = {f"note/{key}": value for key, value in result.get("notes", {}).items()} | {"seconds": result.get("seconds")}
    for claim, record in result["claims"].items():
        for index, part in enumerate(record["parts"]):
            name, (low, high) = claim if len(record["parts"]) == 1 else f"{claim}/{index}", part["ci95"]
            found |= {f"{name}/estimate": part["estimate"], f"{name}/ci_low": low, f"{name}/ci_high": high, f"{name}/n": part["n"]}
    return ((key, value) for key, value in found.items() if isinstance(value, (int, float)) and not isinstance(value, bool))


def _pictures(result: dict[str, Any], folder: Path) -> Iterator[tuple[str, Any]]:
    """Figures and videos as they lie in the run; encoded already, so that wandb needs no encoder of its own."""
    import wandb

    captions = {entry["file"]: entry.get("caption") for entry in result.get("figures", []) + result.get("videos", [])}
    for path in (folder / name for name in media_files(result) if name in captions and (folder / name).is_file()):
        if path.suffix == ".mp4":
            yield f"video/{path.stem}", wandb.Video(str(path), format="mp4", caption=captions[path.name])
        else:
            yield f"figure/{path.stem}", wandb.Image(str(path), caption=captions[path.name])
