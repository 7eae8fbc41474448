"""Files are whole or old, full disks are sentences, locks name their holder, and workers end with their parent."""
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from motionlab.core import digests, files, locks
from motionlab.core.errors import MotionLabError

LIB = Path(files.__file__).parents[2]


def python(code: str, *arguments, **environment) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, text=True,
                            env=os.environ | {"PYTHONPATH": str(LIB)} | environment)


# ---------------------------------------------------------------------------------------------------------------- files


def test_a_failed_write_leaves_the_old_file_and_no_draft(tmp_path):
    path = files.write_atomic(tmp_path / "a.txt", "old")
    with pytest.raises(ZeroDivisionError), files.replacing(path) as draft:
        draft.write_text("new")
        1 / 0
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def test_drafts_of_dead_processes_go_and_those_of_living_ones_stay(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    drafts = [tmp_path / f".a.{files._MACHINE}-{pid}.tmp.txt" for pid in (gone.pid, os.getppid())]
    for draft in drafts:
        draft.write_text("half")
    files.write_atomic(tmp_path / "a.txt", "new")
    assert [draft.exists() for draft in drafts] == [False, True]


def test_a_kill_in_the_middle_of_a_copy_leaves_the_old_file(tmp_path):
    (tmp_path / "new").write_bytes(b"n" * 4_000_000)
    (tmp_path / "old").write_bytes(b"o")
    code = ("import os, shutil, signal, sys\nfrom motionlab.core.files import copy_file\n"
            "def half(source, target):\n    open(target, 'wb').write(b'n' * 1000)\n    os.kill(os.getpid(), signal.SIGKILL)\n"
            "shutil.copyfile = half\ncopy_file(sys.argv[1], sys.argv[2])")
    assert python(code, tmp_path / "new", tmp_path / "old").wait() == -signal.SIGKILL
    assert (tmp_path / "old").read_bytes() == b"o"
    files.copy_file(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old").stat().st_size == 4_000_000 and sorted(os.listdir(tmp_path)) == ["new", "old"]


def test_an_array_without_room_is_refused_and_leaves_nothing(tmp_path, monkeypatch):
    def full(handle, start, size):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(MotionLabError, match="disk is full"):
        files.new_array(tmp_path / "a.npy", np.uint8, (1000, 1000))
    assert os.listdir(tmp_path) == []


def test_an_array_takes_its_room_at_once_and_is_read_back(tmp_path):
    array = files.new_array(tmp_path / "a.npy", np.uint8, (100, 10_000))
    assert (tmp_path / "a.npy").stat().st_blocks * 512 >= 1_000_000
    array[3] = 7
    array.flush()
    assert np.load(tmp_path / "a.npy")[3, 5] == 7 and files.holds_array(tmp_path / "a.npy", (100, 10_000))
    with open(tmp_path / "a.npy", "r+b") as file:
        file.truncate(5000)
    assert not files.holds_array(tmp_path / "a.npy")


# -------------------------------------------------------------------------------------------------------------- digests


def test_a_changed_or_cut_file_is_told_and_an_unknown_one_is_taken(tmp_path):
    path = files.write_atomic(tmp_path / "w" / "a.bin", b"12345")
    assert digests.problem_of(path) is None
    digests.record(path)
    assert digests.checked(path) == path
    path.write_bytes(b"12346")
    with pytest.raises(MotionLabError, match="contents changed"):
        digests.checked(path)
    path.write_bytes(b"123")
    with pytest.raises(MotionLabError, match="3 bytes in place of 5"):
        digests.checked(path)


def test_a_kill_between_list_and_file_leaves_a_file_that_is_known(tmp_path, monkeypatch):
    old, new = (files.write_atomic(tmp_path / name / "a.bin", name) for name in ("old", "new!"))
    digests.record(old, new)
    monkeypatch.setattr(digests, "copy_file", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        digests.copy_recorded(new, old)
    assert digests.problem_of(old) is None and old.read_text() == "old"
    monkeypatch.undo()
    digests.copy_recorded(new, old)
    assert old.read_text() == "new!" and digests.known_digests(old) == [digests.digest_of(new)]


def test_what_is_damaged_is_not_copied_over_what_is_whole(tmp_path):
    made, shipped = (files.write_atomic(tmp_path / name / "a.bin", name) for name in ("made", "shipped"))
    digests.record(made, shipped)
    made.write_text("m")
    with pytest.raises(MotionLabError, match="not the file that was written"):
        digests.copy_recorded(made, shipped)
    assert shipped.read_text() == "shipped"


def test_the_shipped_weights_are_those_that_are_listed():
    from motionlab.core.paths import repo_root

    folder = repo_root() / "reproductions" / "testbed" / "checkpoints"
    weights = sorted(folder.glob("*.safetensors"))
    assert weights and all(digests.known_digests(path) for path in weights)
    assert [digests.problem_of(path) for path in weights] == [None] * len(weights)


# ---------------------------------------------------------------------------------------------------------------- locks


def test_a_lock_names_its_holder_and_ends_with_it(tmp_path):
    code = "import sys, time\nfrom motionlab.core.locks import only_one\nfrom pathlib import Path\n" \
           "with only_one(Path(sys.argv[1])):\n    print('mine', flush=True)\n    time.sleep(60)"
    other = python(code, tmp_path / "lock")
    assert other.stdout.readline() == "mine\n"
    with pytest.raises(locks.Busy, match=f"in use by process {other.pid} on "), locks.held(tmp_path / "lock", "It"):
        pass
    other.kill()
    other.wait()
    with locks.only_one(tmp_path / "lock") as holder:
        assert holder is None
    with locks.only_one(tmp_path / "lock") as holder:  # given back
        assert holder is None


@pytest.mark.parametrize("silent", [False, True])
def test_a_lock_of_another_host_counts_until_it_is_silent_for_long(tmp_path, silent):
    path = tmp_path / "lock"
    path.write_text("77 on node7, since 2026-11-30 02:10:00")
    if silent:
        os.utime(path, (time.time() - 2 * locks.SILENT_S,) * 2)
    with locks.only_one(path) as holder:
        assert holder == (None if silent else "77 on node7, since 2026-11-30 02:10:00")


def test_a_silent_lock_of_another_host_that_the_system_still_keeps_is_taken(tmp_path):
    from filelock import FileLock

    path = tmp_path / "lock"
    with FileLock(path):  # as a file server keeps that of a host that is gone
        path.write_text("77 on node7, since 2026-11-30 02:10:00")
        os.utime(path, (time.time() - 2 * locks.SILENT_S,) * 2)
        with locks.only_one(path) as holder:
            assert holder is None


def test_a_held_lock_has_a_heartbeat(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "BEAT_S", 0.05)
    with locks.only_one(tmp_path / "lock"):
        os.utime(tmp_path / "lock", (1, 1))
        until = time.monotonic() + 5
        while (tmp_path / "lock").stat().st_mtime < 100 and time.monotonic() < until:
            time.sleep(0.02)
        assert (tmp_path / "lock").stat().st_mtime > 100


# ------------------------------------------------------------------------------------------------------------ processes

POOL = """
import os, sys, time
from motionlab.core.processes import pool

def busy(_):
    print(os.getpid(), flush=True)
    while True:
        sum(range(10000))

if __name__ == "__main__":
    with pool(2) as crew:
        list(crew.map(busy, range(2)))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kill -9 is POSIX's")
def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    (tmp_path / "script.py").write_text(POOL)
    parent = subprocess.Popen([sys.executable, tmp_path / "script.py"], stdout=subprocess.PIPE, text=True,
                              env=os.environ | {"PYTHONPATH": str(LIB)})
    workers = [psutil.Process(int(parent.stdout.readline())) for _ in range(2)]
    parent.kill()
    parent.wait()
    gone, alive = psutil.wait_procs(workers, timeout=10)
    for process in alive:
        process.kill()
    assert not alive


def test_only_processes_of_a_parent_have_an_end(monkeypatch):
    from motionlab.core import processes

    assert multiprocessing.parent_process() is None
    processes.end_with_parent()  # nothing to wait for, nothing ends
