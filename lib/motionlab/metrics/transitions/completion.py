"""Transition completion in TC-Bench's form (arXiv 2406.08656): yes or no to assertions about named frames.

    TCR      share of clips of which every assertion holds, those about other objects left out
    TC-Score 2/3 (share of assertions that hold, object consistency left out) + 1/3 ramp(s), s the mean similarity of neighbouring frames

Its judge is a closed model; its answers can be read from a file. On the world, the learned readers answer.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from motionlab.core.errors import MotionLabError
from motionlab.core.files import parse_json

COMPLETION, CONSISTENCY, OTHERS = "transition completion", "transition object consistency", "other objects"
SCALE = 16               # frames are numbered as of clips of sixteen, from 1
RAMP = (0.90, 0.98)      # similarity of neighbours that counts 0, and 1
SURE = 0.1               # by how much a reader must be less sure of an end in the middle than at that end


def frame_of(number: int, n: int) -> int:
    """Which of n frames a number of TC-Bench's (1 to 16) means, from 0."""
    return round((number - 1) / (SCALE - 1) * (n - 1))


def completed(answers: Sequence[Mapping]) -> bool:
    """Does every assertion hold that is not about other objects? A half (neither yes nor no) does not count as no, as in the release.

    Raises:
        MotionLabError: no answers.
    """
    _some(answers)
    return all(bool(one["correct"]) for one in answers if one["type"] != OTHERS)


def tc_score(answers: Sequence[Mapping], similarity: float | None = None) -> float:
    """TC-Score of one clip; similarity: s, None where it is not known: then the plain share of all assertions, as in the release."""
    _some(answers)
    if similarity is None:
        return float(np.mean([one["correct"] for one in answers]))
    counted = [one["correct"] for one in answers if one["type"] != CONSISTENCY]
    low, high = RAMP
    return float(2 / 3 * np.mean(counted) + 1 / 3 * np.clip((similarity - low) / (high - low), 0, 1))


def _some(answers):
    if not answers:
        raise MotionLabError("A clip has no answers.", fix="Leave it out, or ask its assertions.")


def read_answers(path: str | Path) -> dict[str, list[dict]]:
    """{clip: answers} of a file in TC-Bench's form: {"00003-00001": [{"type": ..., "correct": 1, "frames": [1, 9], ...}, ...]}. Its own has
    slips of the judge for types ("rotation"): they count as every type does that is neither other objects nor object consistency.

    Raises:
        MotionLabError: no such file, not such a file.
    """
    path = Path(path)
    try:
        found = parse_json(path.read_text(encoding="utf-8"))
        out = {str(clip): [_answer(one) for one in answers] for clip, answers in found.items()}
    except (FileNotFoundError, IsADirectoryError):
        raise MotionLabError(f"There is no file of answers '{path}'.",
                             fix="Give TC-Bench's eval_results/gpt_eval/i2v/<model>.json.") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise MotionLabError(f"'{path}' holds no answers in TC-Bench's form ({error}).",
                             fix='Write {"00003-00001": [{"type": "transition completion", "correct": 1}, ...], ...}.') from None
    if not out:
        raise MotionLabError(f"'{path}' holds no answers.", fix="Give the judge's answers, a list per clip.")
    return out


def _answer(one):
    kind, correct = str(one["type"]), float(one["correct"])
    if correct not in (0.0, 0.5, 1.0):
        raise ValueError(f"an assertion of type '{kind}' with correct {one['correct']}")
    return {"type": kind, "correct": correct}


# ---------------------------------------------------------------------------------------------- the readers as judges
def judged_by_reader(first: np.ndarray, last: np.ndarray, same: np.ndarray) -> list[dict]:
    """Answers about a clip that changes from one look to another, in the order of TC-Bench's assertions on one transition.

    Args:
        first, last: (f,) a reader's probability of the first and of the last look, of each frame read alone. same: (f,) whether it reads
            the subject's species in that frame as in the first one.

    Frame 9 counts as on the way where the reader is less sure of the first look than in frame 1 and of the last than in frame 16, by
    `SURE`: a hard cut is on no way. "Consistent": the last look gains on the first from each named frame to the next, or is as it was.
    """
    n = len(first)
    at = {number: frame_of(number, n) for number in (1, 5, 6, 9, 11, 13, 16)}
    gain = np.array([last[at[k]] - first[at[k]] for k in (1, 5, 9, 13, 16)])
    said = [
        (COMPLETION, first[at[1]] > 0.5),
        (COMPLETION, last[at[16]] > 0.5),
        (COMPLETION, first[at[9]] < first[at[1]] - SURE and last[at[9]] < last[at[16]] - SURE),
        (COMPLETION, (np.diff(gain) > -SURE).all() and gain[-1] > gain[0] + SURE),
        *((CONSISTENCY, same[at[k]]) for k in (6, 11, 16)),
    ]
    return [{"type": kind, "correct": float(bool(holds))} for kind, holds in said]
