"""`motionlab world` writes a clip and its truth whole or not at all."""
import errno

import numpy as np
import pytest

from motionlab.figures import export
from motionlab.core.errors import MotionLabError


def test_everything_is_written_and_nothing_else(tmp_path):
    written = export.write_world(seed=3, size=48, out=tmp_path, frames=5)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(export.FILES) == sorted(written)
    truth = np.load(tmp_path / "truth.npz")
    assert truth["frames"].shape == (5, 48, 48, 3) and {"flow", "tracks", "visible"} <= set(truth)


def test_a_full_disk_leaves_the_clip_that_was_there(tmp_path, monkeypatch):
    export.write_world(seed=4, size=48, out=tmp_path, frames=5)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def full(*arguments, **more):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(export.np, "savez_compressed", full)
    with pytest.raises(MotionLabError, match="disk is full"):
        export.write_world(seed=3, size=48, out=tmp_path, frames=5)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
