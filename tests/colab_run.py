"""One notebook at tier smoke in a bare IPython, as Colab runs it: no papermill, no ipykernel, no checkout. See tests/colab.sh.

    python colab_run.py link SITE_PACKAGES NAME...   # let this environment use another's torch (gigabytes) in place of its own copy
    python colab_run.py run NOTEBOOK [SECONDS]       # its first cell within so many seconds, then all others
"""
import json
import os
import sys
import time
from importlib import metadata
from pathlib import Path


def link(source: str, *names: str) -> None:
    """Link distributions and all that they need from another environment into this one."""
    here = next(Path(path) for path in sys.path if path.endswith("site-packages"))
    dists = {dist.name.lower().replace("_", "-"): dist for dist in metadata.distributions(path=[source])}
    waiting, done = list(names), set()
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        if name in done or name not in dists:
            continue
        done.add(name)
        tops = {file.parts[0] for file in dists[name].files or () if file.parts[0] not in ("..", "__pycache__")}
        for top in tops:
            if not (here / top).exists():
                os.symlink(Path(source, top), here / top)
        waiting += [line.split(";")[0].split("[")[0].split("(")[0].rstrip("<>=!~. 0123456789,") for line in dists[name].requires or ()
                    if "extra ==" not in line]
    print(f"linked: {', '.join(sorted(done))}")


def versions() -> dict[str, str]:
    """{distribution: version} of all that is installed."""
    return {dist.name: dist.version for dist in metadata.distributions()}


def run(notebook: str, limit_s: float) -> None:
    """Run it; say what the first cell took and whether it touched what was there.

    Raises:
        SystemExit: too slow, something replaced under a running kernel, no result.
    """
    from IPython.core.interactiveshell import InteractiveShell

    import matplotlib.figure
    import numpy
    import pandas  # noqa: F401  as a Colab kernel has, before its first cell

    shell, before, began = InteractiveShell.instance(), versions(), time.monotonic()
    code = [cell for cell in json.loads(Path(notebook).read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    shell.run_cell("".join(code[0]["source"])).raise_error()
    took, after = time.monotonic() - began, versions()
    replaced = {name: (old, after.get(name)) for name, old in before.items() if after.get(name) != old}
    print(f"first cell: {took:.0f} s, {len(after) - len(before)} packages came, replaced: {replaced or 'none'}", flush=True)
    if replaced or took > limit_s:
        raise SystemExit("a kernel would need a restart" if replaced else f"more than {limit_s:.0f} s")
    for cell in code[1:]:
        shell.run_cell("".join(cell["source"])).raise_error()
        if "parameters" in cell["metadata"].get("tags", []):
            shell.user_ns.update(smoke(Path(notebook).stem))
    result = Path("runs", "smoke", Path(notebook).stem, "result.json")
    print(f"{Path(notebook).stem}: {len(json.loads(result.read_text(encoding='utf-8'))['claims'])} claims judged in {Path.cwd()}, "
          f"{time.monotonic() - began - took:.0f} s")


def smoke(stem: str) -> dict:
    """The parameters of tier smoke."""
    from motionlab.core.paths import repo_root
    from motionlab.ledger.notebooks import read_notebook
    from motionlab.runner.params import resolve

    return resolve(read_notebook(stem, repo_root()), "smoke", {}, repo_root()) | {"tier": "smoke", "out_dir": f"runs/smoke/{stem}"}


if __name__ == "__main__":
    command, first, *others = sys.argv[1:]
    link(first, *others) if command == "link" else run(first, float(*others or (180,)))
