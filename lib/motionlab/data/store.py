"""Training data on disk: latents x1 of a source's clips with named sidecars beside them, made once.

    data = open_data(World(BankConfig("fine_tuning", clips=2000)), pipe, (Sidecar("motion", key="d1"),), home)
    data.batch(torch.tensor([4, 1]))          # {"x1": (2, f, c, h, w), "d1": ..., "text": {"tokens": (2, n)}}

home/<clips>_<autoencoder>/<sidecar>/0003.npy, in shards of `SHARD` clips, each written under its name only when it is
whole; pictures are not kept. A sidecar's manifest.json says which clips, which maker and which settings it holds: whoever
opens it with others is told so, and nothing is mixed. Everything here can be deleted at any time.
"""
from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from motionlab.core.errors import MotionLabError
from motionlab.core.files import explained, holds_array, read_json, replacing, shown, write_atomic
from motionlab.data.bank import workers
from motionlab.data.sidecars import Sidecar, encoded
from motionlab.models.pipe import Inputs, Pipe

SHARD = 256
PART = 16                # clips that are drawn and encoded together


class Data:
    """Clips as training reads them: `captions`, and `batch` of any of them.

    Args:
        arrays: key -> one array per shard, (n, ...) float16.
        text: captions -> what the network reads of them, such as `Pipe.text`.
    """

    def __init__(self, captions: list[str], arrays: dict[str, list[np.ndarray]], text: Callable[[Sequence[str]], Inputs]):
        self.captions, self.arrays, self.text, self.rows = captions, arrays, text, list(range(len(captions)))

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, indices: torch.Tensor) -> dict:
        """{key: (b, ...) float32, "text": inputs of the captions}."""
        rows = [self.rows[i] for i in indices.tolist()]
        found = {key: torch.from_numpy(np.stack([shards[i // SHARD][i % SHARD] for i in rows])).float()
                 for key, shards in self.arrays.items()}
        return found | {"text": self.text([self.captions[i] for i in rows])}

    def where(self, keep: Callable[[str], bool]) -> Data:
        """Only the clips whose caption `keep` accepts."""
        out = Data(self.captions, self.arrays, self.text)
        out.rows = [i for i in self.rows if keep(self.captions[i])]
        return out


def open_data(source, pipe: Pipe, sidecars: Sequence[Sidecar], home: Path, say: Callable[[str], None] = print) -> Data:
    """Latents and sidecars of a source's clips, made now where they are missing.

    Args:
        source: `data.sources.World` or `Folder`.

    Raises:
        MotionLabError: an entry of other clips or of another maker; a full disk; what reading or drawing a clip raises.
    """
    wanted = (Sidecar("x1"), *sidecars)
    folder = Path(home) / f"{source.name}_{pipe.codec_name}"
    for one in wanted:
        _check_manifest(folder / one.label, one, source, pipe)
    todo = [k for k in range(_shards(source)) if any(not _whole(folder, one, source, k) for one in wanted)]
    if todo:
        _make(source, pipe, wanted, folder, todo, say)
    arrays = {one.key: [np.load(_file(folder, one, k), mmap_mode="r") for k in range(_shards(source))] for one in wanted}
    return Data(source.captions, arrays, pipe.text)


def held_data(source, captions: Sequence[str], pipe: Pipe, sidecars: Sequence[Sidecar]) -> Data:
    """Latents and sidecars of a few clips, made now and kept nowhere.

    Args:
        source: such as `data.sources.Listed`.
    """
    made = encoded(source, sidecars, pipe)
    return Data(list(captions), {key: [value.cpu().numpy().astype(np.float16)] for key, value in made.items()}, pipe.text)


def _shards(source):
    return -(-len(source) // SHARD)


def _file(folder, sidecar, shard):
    return folder / sidecar.label / f"{shard:04d}.npy"


def _whole(folder, sidecar, source, shard) -> bool:
    path = _file(folder, sidecar, shard)
    return holds_array(path) and len(np.load(path, mmap_mode="r")) == min(SHARD, len(source) - shard * SHARD)


def _check_manifest(folder, sidecar, source, pipe):
    """The manifest is there and says what we want, or is written now."""
    path, now = folder / "manifest.json", {"clips": source.hash(), "autoencoder": pipe.codec_name, **sidecar.about()}
    if not path.is_file():
        write_atomic(path, json.dumps(now, indent=1))
        return
    before = read_json(path) or {}
    changed = [name for name in now if before.get(name) != json.loads(json.dumps(now[name]))]
    if changed:
        what = {"clips": "other clips", "maker": "another version of its maker"}.get(changed[0], f"another {changed[0]}")
        raise MotionLabError(f"{shown(folder)} was made of {what}.", fix="Delete that folder; it is made again from the clips.")


def _make(source, pipe, wanted, folder, todo, say):
    with explained(folder):
        for k, parts in zip(todo, _drawn(source, pipe, wanted, folder, todo)):
            for one, arrays in parts:
                with replacing(_file(folder, one, k)) as draft:
                    np.save(draft, np.concatenate(arrays))
            say(f"clips {source.name}: {min(len(source), (k + 1) * SHARD)}/{len(source)} with {', '.join(one.label for one in wanted)}")


def _drawn(source, pipe, wanted, folder, todo) -> Iterator[list[tuple[Sidecar, list[np.ndarray]]]]:
    """Per shard, (sidecar, encoded parts) of those that it lacks; clips of the world are rendered in processes of their own."""
    with workers() if source.exact and len(source) > PART else _alone() as pool:
        for k in todo:
            missing = [one for one in wanted if not _whole(folder, one, source, k)]
            numbers = range(k * SHARD, min(len(source), (k + 1) * SHARD))
            parts = [list(numbers[i:i + PART]) for i in range(0, len(numbers), PART)]
            out: list[list[np.ndarray]] = [[] for _ in missing]
            for drawn in pool.map(_draw_part, [source] * len(parts), parts, [missing] * len(parts)):
                for one, arrays, made in zip(missing, drawn, out):
                    with torch.no_grad():
                        made.append(one.encode(arrays, pipe).cpu().numpy().astype(np.float16))
            yield list(zip(missing, out))


def _draw_part(source, numbers, sidecars):
    drawn = zip(*([one.draw(source, i) for one in sidecars] for i in numbers))
    return [np.stack(arrays) for arrays in drawn]


class _alone:
    """Stands for a pool where this process does the work."""

    map = staticmethod(map)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        return None
