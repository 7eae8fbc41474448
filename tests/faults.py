"""The fault campaign: kills, full disks, torn files and two of everything at once. POSIX only; full disks need root (tmpfs).

    python tests/faults.py --kills 200 --disks 20 --torn 40 --twice 20 --out docs/faults.md

Each trial runs one activity in a process of its own, disturbs it at a random moment, and then demands that nothing finished
was lost, that a second call finishes, that its results equal those of an undisturbed call to the last bit, and that no
process and no draft is left. The processes are forked from this one, which has imported everything, so that a trial takes
about a second.
"""
from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
os.environ |= {"PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent / "lib"), *filter(None, [os.environ.get("PYTHONPATH")])]),
               "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled", "HF_HUB_OFFLINE": "1"}

import psutil  # noqa: E402

from fault_activities import ACTIVITIES, preload  # noqa: E402
from motionlab.core.errors import MotionLabError  # noqa: E402
from motionlab.core.locks import Busy  # noqa: E402

OK, TOLD, BUSY, BROKEN = 0, 3, 4, 5         # how a trial's process ends: done, a sentence, a sentence on who holds it, a traceback
MEMORY_DISK = Path("/dev/shm")              # where a flush to the disk takes no time
END_S = 15.0                                # processes must be gone this soon after their parent
DRAFTS = ("**/.*.tmp*", "**/unfinished_*", "**/.draft")


# --------------------------------------------------------------------------------------------------------------- trials


def start(action: Callable[[Path], None], root: Path, log: Path) -> int:
    """Fork a process that does it; its exit code says how it ended."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1), os.dup2(handle, 2)
    code = BROKEN
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if (root / "reproductions").is_dir():
            os.environ["MOTIONLAB_ROOT"] = str(root)
            os.chdir(root)
        action(root)
        code = OK
    except Busy as error:
        code = BUSY
        print(f"error: {error}")
    except MotionLabError as error:
        code = TOLD
        print(f"error: {error}")
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)


def ended(pid: int) -> int:
    """Wait; the exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Trials:
    """All trials of the activities, and what went wrong."""

    def __init__(self, names: list[str], seed: int):
        self.names, self.random, self.home = names, random.Random(seed), Path(tempfile.mkdtemp(prefix="faults_", dir=MEMORY_DISK if MEMORY_DISK.is_dir() else None))
        self.counts, self.problems, self.reference, self.seconds = defaultdict(Counter), [], {}, {}
        for name in names:
            root = self.fresh(name)
            began = time.monotonic()
            code = self.finish(name, root)
            self.seconds[name] = time.monotonic() - began
            assert code == OK, (self.home / f"{name}.log").read_text()[-2000:]
            self.reference[name] = self.named(name, root)
            print(f"{name}: {self.seconds[name]:.1f} s undisturbed", flush=True)

    def shared(self, n: int) -> list[str]:
        """Names of `n` trials: the quick activities more often, each at least in every 25th."""
        weight = {name: 1 / max(self.seconds[name], 0.5) for name in self.names}
        least = 0.04 * sum(weight.values())
        weight = {name: max(value, least) for name, value in weight.items()}
        chosen = self.names[:n] + self.random.choices(self.names, list(weight.values()), k=max(0, n - len(self.names)))
        self.random.shuffle(chosen)
        return chosen

    def fresh(self, name: str, home: Path | None = None) -> Path:
        """A new place with what the activity needs, the same each time."""
        template = self.home / f"template_{name}"
        if not template.exists():
            template.mkdir()
            code = ended(start(ACTIVITIES[name].prepare, template, self.home / f"{name}.log"))
            assert code == OK, (self.home / f"{name}.log").read_text()[-2000:]
        root = Path(tempfile.mkdtemp(dir=home or self.home, prefix=f"{name}_"))
        shutil.copytree(template, root, dirs_exist_ok=True)
        return root

    def finish(self, name: str, root: Path) -> int:
        return ended(start(ACTIVITIES[name].run, root, self.home / f"{name}.log"))

    def named(self, name: str, root: Path) -> str:
        try:
            return ACTIVITIES[name].result(root)
        except Exception as error:
            return f"no result: {type(error).__name__}: {error}"

    def judge(self, kind: str, name: str, root: Path, problems: list[str]) -> None:
        """Count a trial: a second call must finish with the undisturbed result, and leave nothing half-done."""
        code = self.finish(name, root)
        if code != OK:
            problems.append(f"a second call ended with {code}: {(self.home / f'{name}.log').read_text()[-300:]}")
        elif self.named(name, root) != self.reference[name]:
            problems.append(f"another result: {self.named(name, root)[:200]}")
        problems += [f"left behind: {path.relative_to(root)}" for pattern in DRAFTS for path in root.glob(pattern)]
        self.counts[kind][name, "sound" if not problems else "broken"] += 1
        self.problems += [f"{kind} of {name}: {problem}" for problem in problems]
        print(*self.problems[-len(problems):] if problems else (), sep="\n", end="\n" if problems else "", flush=True)
        shutil.rmtree(root, ignore_errors=True)

    def kill(self, name: str) -> None:
        """kill -9 at a random moment; its processes must end with it."""
        root, problems = self.fresh(name), []
        pid = start(ACTIVITIES[name].run, root, self.home / f"{name}.log")
        time.sleep(self.random.uniform(0, self.seconds[name]))
        try:
            family = psutil.Process(pid).children(recursive=True)
        except psutil.Error:
            family = []
        os.kill(pid, signal.SIGKILL)
        late = ended(pid) == OK
        _, alive = psutil.wait_procs(family, timeout=END_S)
        for process in alive:
            problems.append(f"orphan: {process.pid}")
            process.kill()
        self.counts["moments"]["after the end" if late else "while it ran"] += 1
        self.judge("kill", name, root, problems)

    def full_disk(self, name: str, share: float) -> None:
        """A disk that has room for a share of what is needed; then for all of it."""
        need = self.needed(name)
        mount = Path(tempfile.mkdtemp(dir=self.home, prefix="disk_"))
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={max(1, int(need / 1024))}k", "tmpfs", mount], check=True)
        try:
            root, problems = self.fresh(name, mount), []
            used = shutil.disk_usage(mount).used
            size = used + max(4096, int(share * (need - used)))
            subprocess.run(["mount", "-o", f"remount,size={size // 1024 + 4}k", mount], check=True)
            code = self.finish(name, root)
            if code not in (OK, TOLD):
                problems.append(f"ended with {code}: {(self.home / f'{name}.log').read_text()[-300:]}")
            self.counts["full disk told"][name] += code == TOLD
            subprocess.run(["mount", "-o", "remount,size=1g", mount], check=True)
            self.judge("full disk", name, root, problems)
        finally:
            subprocess.run(["umount", "-l", mount], check=False)

    def needed(self, name: str) -> int:
        root = self.fresh(name)
        self.finish(name, root)
        size = sum(path.stat().st_blocks * 512 for path in root.rglob("*"))
        shutil.rmtree(root, ignore_errors=True)
        return size

    def tear(self, name: str) -> None:
        """Half of a finished file is gone: it must not be taken for whole."""
        root = self.fresh(name)
        self.finish(name, root)
        files = sorted(path for pattern in ACTIVITIES[name].torn for path in root.glob(pattern) if path.is_file() and path.stat().st_size > 1)
        victim = self.random.choice(files)
        os.truncate(victim, victim.stat().st_size // 2)
        self.judge("torn file", name, root, [])

    def twice(self, name: str) -> None:
        """Two at once: each finishes or says who has it."""
        root, problems = self.fresh(name), []
        pids = [start(ACTIVITIES[name].run, root, self.home / f"{name}.log") for _ in range(2)]
        codes = [ended(pid) for pid in pids]
        if not set(codes) <= {OK, BUSY} or OK not in codes:
            problems.append(f"two at once ended with {codes}: {(self.home / f'{name}.log').read_text()[-300:]}")
        self.judge("two at once", name, root, problems)

    def table(self) -> str:
        kinds = ("kill", "full disk", "torn file", "two at once")
        lines = ["| fault | " + " | ".join(self.names) + " | sound |", "|---|" + "---|" * (len(self.names) + 1)]
        for kind in kinds:
            sound, broken = ({name: self.counts[kind][name, word] for name in self.names} for word in ("sound", "broken"))
            cells = [f"{sound[name]} of {sound[name] + broken[name]}" if sound[name] + broken[name] else "-" for name in self.names]
            total = sum(sound.values()) + sum(broken.values())
            lines.append(f"| {kind} | {' | '.join(cells)} | **{sum(sound.values())} of {total}** |" if total else f"| {kind} |" + " - |" * (len(self.names) + 1))
        return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("kills", 200), ("disks", 20), ("torn", 40), ("twice", 20), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--only", nargs="+", choices=ACTIVITIES, default=list(ACTIVITIES))
    parser.add_argument("--out", type=Path, help="write the table here")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no new trial after so long; the table says what was tried")
    options = parser.parse_args()
    preload()
    trials = Trials(options.only, options.seed)
    names, tearable = options.only, [name for name in options.only if ACTIVITIES[name].torn]
    disks = options.disks if os.geteuid() == 0 and shutil.which("mount") else 0
    todo = [(trials.twice, names[k % len(names)]) for k in range(options.twice)]
    todo += [(trials.tear, tearable[k % len(tearable)]) for k in range(options.torn if tearable else 0)]
    todo += [(trials.full_disk, names[k % len(names)], (k + 0.5) / disks) for k in range(disks)]
    todo += [(trials.kill, name) for name in trials.shared(options.kills)]
    began = time.monotonic()
    for k, (trial, *arguments) in enumerate(todo):
        if time.monotonic() - began > 60 * options.minutes:
            break
        trial(*arguments)
        if k % 10 == 9:
            print(f"{time.strftime('%H:%M:%S')} {k + 1} trials, {len(trials.problems)} problems", flush=True)
    ran = trials.counts["moments"]["while it ran"]
    kills = sum(trials.counts["moments"].values())
    text = f"{trials.table()}\n\n{ran} of {kills} kills came while it ran; {sum(trials.counts['full disk told'].values())} full disks were told in a sentence."
    print(text, *trials.problems, sep="\n")
    if options.out:
        options.out.write_text(f"# Fault campaign\n\nMade by `python tests/faults.py`; what a trial demands is said there.\n\n{text}\n", encoding="utf-8")
    shutil.rmtree(trials.home, ignore_errors=True)
    return 1 if trials.problems else 0


if __name__ == "__main__":
    sys.exit(main())
