"""An adapter tuned on one clip while you watch, and what it makes of other texts: the live part of the notebooks on motion transfer."""
from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from motionlab.analyses.features import block_features
from motionlab.analyses.over_time import track_cosines
from motionlab.core.errors import MotionLabError
from motionlab.core.noise import prompt_seeds
from motionlab.data.sidecars import encoded
from motionlab.data.sources import Listed, Single
from motionlab.data.store import held_data
from motionlab.data.transfer import Target, TransferTask
from motionlab.experiments.live import losses_by_t, watch
from motionlab.experiments.transfer import Tuning, tuning_config
from motionlab.figures import Seen
from motionlab.methods.base import Method, Sampling
from motionlab.metrics.transfer import middle, route, source_limbs
from motionlab.models.evaluator import LIMBS, Evaluator
from motionlab.models.pipe import Pipe
from motionlab.world import Clip, render
from motionlab.world.captions import parse_caption, sentence
from motionlab.world.palette import COLOURS, PLACES

JUDGED_AT = 0.5             # noise level at which features and losses of a tuning are looked at


@dataclass(frozen=True)
class OneClip:
    """What is tuned on, and what is asked for then. source: `Listed` or `Single`, of one clip. texts: what to sample, a noise each."""

    source: Any
    caption: str
    texts: tuple[str, ...]
    noises: tuple[int, ...]

    @property
    def frames(self) -> np.ndarray:
        """Of the clip, uint8 (f, h, w, 3)."""
        return self.source.clip(0).frames


def clip_of_task(task: TransferTask, pipe: Pipe) -> OneClip:
    """A task's source, and its targets' texts on their noises."""
    return OneClip(Listed([task.clip(pipe.size[0], pipe.frames)]), task.caption, tuple(t.text for t in task.targets),
                   tuple(t.noise for t in task.targets))


def clip_of_yours(video: str, caption: str, texts: Sequence[str], pipe: Pipe, tracks: str = "", mask: str = "") -> OneClip:
    """A video of yours at the generator's size, rate and length; every text on the noise of its place in the list.

    Args:
        caption: what it shows; the kit's own generator reads the world's grammar only, "" is no text. tracks, mask: as of `Single`.

    Raises:
        MotionLabError: no such video, too short, an empty list of texts, a word that the generator does not know.
    """
    if not texts:
        raise MotionLabError(f"Nothing was asked of the motion of '{video}'.", fix="Give one text or more to sample with.")
    pipe.text([caption, *texts])
    source = Single(Path(video), caption, pipe.frames, pipe.size, 0.0, True, tracks, mask)
    source.clip(0)
    return OneClip(source, caption, tuple(texts), tuple(range(len(texts))))


@dataclass(frozen=True)
class Frames:
    """Frames uint8 (f, h, w, 3) as `Pipe.encode` takes a clip."""

    frames: np.ndarray


def codec_of(pipe: Pipe) -> Callable[[np.ndarray], np.ndarray]:
    """Frames (f, h, w, 3) -> what the generator's autoencoder leaves of them."""
    return lambda frames: pipe.decode(pipe.encode([Frames(frames)]))[0]


def named(name: str, one: OneClip, steps: int) -> str:
    """A folder's name for a tuning of so many steps on this very clip: another clip is another folder."""
    return f"{name}_{steps}_{hashlib.sha256(one.frames.tobytes() + one.caption.encode()).hexdigest()[:8]}"


def redrawn(task: TransferTask, size: int = 48, frames: int = 17) -> Clip:
    """Another clip of the source's caption, the first of `TransferTask.redraws`."""
    return render(task.redraws()[0], size, frames)


def other_looks(caption: str) -> list[str]:
    """A caption of the world's grammar in two other looks, its first subject's colour and its place; any other text as it is."""
    try:
        said = parse_caption(caption)
    except MotionLabError:
        return [caption]
    actor, *others = said["actors"]
    colours, places = ([name for name in known if name != now] for known, now in ((COLOURS, actor["colour"]), (PLACES, said["place"])))
    looks = [{"actors": [actor | {"colour": colour}, *others], "place": place} for colour, place in zip(colours[:2], places)]
    return [sentence(said | look) for look in looks]


def tuned_live(method: Method, base: Pipe, one: OneClip, folder: Path, steps: int, lr: float, seed: int = 0,
               snapshots: int = 4) -> tuple[Pipe, dict[int, Pipe]]:
    """The method tuned on one clip as a sweep does it, and {steps: generator} on the way, the start included; a run that was stopped
    goes on. `base` stays as it is."""
    config = dataclasses.replace(tuning_config(Tuning(lr=lr, steps=steps), seed, folder), log_every=10)
    return watch(method, base, held_data(one.source, [one.caption], base, method.wants()), config, snapshots)


def made_of(method: Method, pipe: Pipe, one: OneClip, options: Sampling, texts: Sequence[str] | None = None) -> np.ndarray:
    """Clips (n, f, h, w, 3) of the texts (None: those that are asked for), each on its own noise."""
    texts = one.texts if texts is None else tuple(texts)
    wanted = method.truth(options)
    shown = encoded(one.source, wanted, pipe) if wanted else {}
    given = {name: value.expand(len(texts), *value.shape[1:]) for name, value in shown.items()} or None
    return pipe.decode(method.video(method.sample(pipe, texts, prompt_seeds(one.noises[:len(texts)], 0), options, given=given)))


# ---------------------------------------------------------------------------------------------- features while it is tuned
def cosine_rows(snapshots: Mapping[int, Pipe], judge: Method, clip, item: str, arm: str, kept: Collection[int],
                seed: int = 0) -> Iterator[dict]:
    """Rows {item, arm, seed, step, foreground, background, tracking, floor} of a tuning's snapshots, all on one noise.

    foreground, background: `analyses.over_time.track_cosines` of what self-attention gives, branch included, mean over the blocks
    `kept`. tracking, floor: the tracking loss of the clean latents that the generator expects, and of the true ones.

    Args:
        judge: the method whose `losses` measure tracking and floor, the same for all arms. clip: with truth.
    """
    for step, pipe in snapshots.items():
        found = [track_cosines(x, clip, cell=pipe.cell) for x in block_features(pipe, clip, item, JUDGED_AT, sorted(kept)).values()]
        row = {"item": item, "arm": arm, "seed": seed, "step": step}
        row |= {kind: float(np.nanmean([one[kind] for one in found])) for kind in found[0]}
        said = next(losses_by_t(judge, pipe, {item: clip}, (JUDGED_AT,)))
        yield row | {name: said[name] for name in ("tracking", "floor")}


def gains(table) -> list[dict]:
    """Rows {item, arm, seed, gain_foreground, gain_background, gain_background_half, gain_tracking} of `cosine_rows`: last step less
    first.

    gain_background_half: the background's gain less half of the foreground's; below 0 where the background gains less than half as much.
    """
    out = []
    for (item, arm, seed), rows in table.groupby(["item", "arm", "seed"], sort=False):
        rows = rows.sort_values("step")
        found = {f"gain_{name}": float(rows[name].iloc[-1] - rows[name].iloc[0]) for name in ("foreground", "background", "tracking")}
        half = found["gain_background"] - found["gain_foreground"] / 2
        out.append({"item": item, "arm": arm, "seed": seed} | found | {"gain_background_half": half})
    return out


# ---------------------------------------------------------------------------------------------- ways
def seen_in(frames: np.ndarray, task: TransferTask, target: Target, reader: Evaluator) -> Seen:
    """A clip (f, h, w, 3) of a target, for `figures.ways`: where a learned reader sees its subject, and how near that is to the
    source's way, as `metrics.transfer` has it."""
    species = target.scene.actors[0].species
    n, read = len(LIMBS[species]), reader.read(frames[None], species=[species])
    source, shown = source_limbs(task.source, frames.shape[1:3], len(frames))
    visible = read["visible"][0][:, :n] > 0.5
    way = middle(read["positions"][0][:, :n].astype(float), visible if target.kind == "b" else shown)
    return Seen(frames, way, route(way, middle(source, shown)))


def source_seen(task: TransferTask, size: int = 48, frames: int = 17) -> Seen:
    """The source clip with its exact way."""
    return Seen(task.clip(size, frames).frames, middle(*source_limbs(task.source, (size, size), frames)))


def unseen(frames: np.ndarray) -> Seen:
    """A clip of which nobody knows where its subject is."""
    return Seen(frames, np.full((len(frames), 2), np.nan))


def all_seen(one: OneClip, made: Mapping[str, np.ndarray], k: int, task: TransferTask | None = None, target: Target | None = None,
             reader: Evaluator | None = None) -> tuple[Seen, dict[str, Seen]]:
    """The source, and clip k of each arm, for `figures.ways`; without a target nobody knows where subjects are.

    Args:
        made: arm -> clips (n, f, h, w, 3).
    """
    if target is None:
        return unseen(one.frames), {name: unseen(clips[k]) for name, clips in made.items()}
    return source_seen(task), {name: seen_in(clips[k], task, target, reader) for name, clips in made.items()}
