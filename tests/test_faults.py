"""The fault campaign in short: see faults.py for what each trial demands, and `make nightly` for all of it."""
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.faults
@pytest.mark.skipif(os.name == "nt", reason="forks and kill -9")
def test_kills_full_disks_torn_files_and_two_at_once_lose_nothing_and_leave_nothing():
    command = [sys.executable, Path(__file__).with_name("faults.py"), "--only", "training", "publish", "--kills", "12", "--disks", "2",
               "--torn", "1", "--twice", "2", "--minutes", "2"]   # of a loaded machine: fewer trials, the same demands
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert "| two at once | 1 of 1 | 1 of 1 | **2 of 2** |" in done.stdout
