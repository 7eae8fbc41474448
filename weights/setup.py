"""The wheel of trained models: reproductions/**/*.safetensors of the repository around this folder, as MANIFEST lists them.

They have a wheel of their own because they change seldom, and because a package index takes no file above 100 MB: models and evidence
together are near that, and both grow. No sdist: it could not reach the files above this folder.
"""
import hashlib
import re
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HOME = Path(__file__).resolve().parents[1]
LINE = re.compile(r"^([0-9a-f]{64})  \d+  (.+\.safetensors)$", re.M)


def carried() -> dict[str, str]:
    """{path in the repository: SHA-256}."""
    return {f"reproductions/{name}": sha for sha, name in LINE.findall((HOME / "reproductions" / "MANIFEST").read_text(encoding="utf-8"))}


class WithModels(build_py):
    """build_py, then the models."""

    def run(self):
        super().run()
        if self.editable_mode:
            return
        home = Path(self.build_lib, "motionlab_weights")
        shutil.rmtree(home / "reproductions", ignore_errors=True)
        for name, sha in carried().items():
            if not (HOME / name).is_file() or hashlib.sha256((HOME / name).read_bytes()).hexdigest() != sha:
                raise SystemExit(f"{name} is missing, or not the file listed in reproductions/MANIFEST.")
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(HOME / name, home / name)


def version() -> str:
    """The library's: the two are released together."""
    return re.search(r'__version__ = "(.+)"', (HOME / "lib/motionlab/__init__.py").read_text(encoding="utf-8"))[1]


if __name__ == "__main__":
    setup(cmdclass={"build_py": WithModels}, version=version(), packages=["motionlab_weights"])
