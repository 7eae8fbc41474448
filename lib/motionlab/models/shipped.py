"""Where the shipped checkpoints lie."""
from __future__ import annotations

from pathlib import Path

from motionlab.core import digests
from motionlab.core.errors import MotionLabError, nearest
from motionlab.core.layout import was_laid_out
from motionlab.core.paths import repo_root

HOME = Path("reproductions") / "testbed" / "checkpoints"


def shipped(name: str, root: Path | None = None) -> Path:
    """The file of a shipped checkpoint by name ("codec", "base", ...), or of another by its path below the repository.

    Raises:
        MotionLabError: there is no such file (the nearest name is given), or it is not as it was recorded.
    """
    root = Path(root or repo_root())
    path = root / name if name.endswith(".safetensors") else root / HOME / f"{name}.safetensors"
    if path.is_file():
        return digests.checked(path)
    if was_laid_out(root) and not (root / HOME / "base.safetensors").is_file():
        raise MotionLabError(f"The trained models are not in this folder: it was laid out without them ({path}).",
                             fix=f"pip install motionlab-weights, then: motionlab init {root}")
    known = sorted(p.stem for p in (root / HOME).glob("*.safetensors"))
    raise MotionLabError(f"There is no checkpoint '{name}' ({path}).{nearest(name, known)}",
                         fix=f"Shipped are: {', '.join(known) or 'none'}; `make pretrain` makes them.")
