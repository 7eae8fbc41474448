"""The wheel: the library, and below motionlab/kit/ what `motionlab init` lays out, from the repository's own files.

A build step and not `package-data` (which takes files inside a package only), `data-files` (one line per folder, installed outside of
the package, copied by an editable install too) or a second `package-dir` (an editable install would need an import hook). An editable
install carries none of it: it is a checkout. Trained models go into a wheel of their own, see weights/.
"""
import hashlib
import re
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HOME = Path(__file__).resolve().parent
PLAIN = ("LICENSE", "CITATION.cff", "CONTRIBUTING.md", "constraints.txt")
GLOBS = ("notebooks/*.ipynb", "docs/*", "reproductions/MANIFEST", "reproductions/*/README.md", "reproductions/*/RESULTS.md")
FIRST_STEPS = "docs/first_steps.md"
SECTIONS = ("The notebooks", "Claims and verdicts")  # of README.md, after the first steps


def carried() -> list[str]:
    """Paths of all that the wheel carries, but for its README: of the evidence what MANIFEST lists, less the trained models."""
    manifest = (HOME / "reproductions" / "MANIFEST").read_text(encoding="utf-8")
    evidence = [f"reproductions/{name}" for name in re.findall(r"^[0-9a-f]{64}  \d+  (.+)$", manifest, re.M)]
    found = {path.relative_to(HOME).as_posix() for pattern in GLOBS for path in HOME.glob(pattern) if path.name[0] != "."}
    names = sorted({*PLAIN, *found, *(name for name in evidence if not name.endswith(".safetensors"))} - {FIRST_STEPS})
    if missing := [name for name in names if not (HOME / name).is_file()]:
        raise SystemExit(f"{missing[0]} is listed in reproductions/MANIFEST and missing: this tree is not whole.")
    return names


def readme() -> str:
    """README.md of a laid-out folder: its own first steps, then the repository's sections on notebooks and verdicts."""
    sections = re.split(r"^(?=## )", (HOME / "README.md").read_text(encoding="utf-8"), flags=re.M)
    chosen = [text for title in SECTIONS for text in sections if text.startswith(f"## {title}\n")]
    return "".join([(HOME / FIRST_STEPS).read_text(encoding="utf-8"), *(f"\n{text.strip()}\n" for text in chosen)])


class WithKit(build_py):
    """build_py, then the kit and its list of digests."""

    def run(self):
        super().run()
        if self.editable_mode:
            return
        kit = Path(self.build_lib, "motionlab", "kit")
        shutil.rmtree(kit, ignore_errors=True)  # an earlier build's
        for name in carried():
            (kit / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(HOME / name, kit / name)
        (kit / "README.md").write_text(readme(), encoding="utf-8", newline="\n")
        files = sorted(path for path in kit.rglob("*") if path.is_file())
        lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.stat().st_size}  {path.relative_to(kit).as_posix()}\n" for path in files]
        (kit / "SHA256").write_text("".join(lines), encoding="utf-8", newline="\n")

    def get_source_files(self):
        """What an sdist needs for building this wheel."""
        return [*super().get_source_files(), *carried(), FIRST_STEPS]

    def get_outputs(self, include_bytecode=True):
        kit = [] if self.editable_mode else [*carried(), "README.md", "SHA256"]
        return [*super().get_outputs(include_bytecode), *(str(Path(self.build_lib, "motionlab", "kit", name)) for name in kit)]


if __name__ == "__main__":
    setup(cmdclass={"build_py": WithKit})
