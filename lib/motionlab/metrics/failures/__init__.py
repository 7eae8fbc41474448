"""Motion failures by name: what VideoJAM (arXiv 2502.02492, Fig. 2 and 6) shows in pictures, in numbers, no network.

VideoJAM names how a base model fails: steps with the same leg twice, extra or missing limbs, one body passing through
another, rotation that follows no simple period, motion opposite to the heading, a frozen subject, objects that appear
or vanish. Each has a detector here. It reads the limbs of the subject that the caption asked for (`palette.read_limbs`)
and returns one number, larger = worse, NaN where the failure cannot occur or cannot be read.

No detector is 0 on every clean clip: limbs hide one another, subjects slow down by nature. A rate is therefore the
share of clips above the 95th percentile of clean clips, or of their reconstructions (`experiments.contrasts.flagged`).

    same_leg_gait        | phase difference of near and far leg - the gait's own | / half a cycle        walk, run
    extra_part           share of frames with a shade in more pieces or larger than clean renders show   every motion
    missing_part         share of frames in which a limb is absent beyond what clean renders show        every motion
    interpenetration     share of the subject's pixels below the ground or in front of its pillar        on the ground
    rotation_period      rms distance (radians) of the subject's angle to the simplest course           what turns
    heading_error        speed against the heading asked for / the motion's usual speed                 what goes, turns
    frozen               share of steps at which nothing of the subject moves, camera motion removed    every motion
    appearing_vanishing  largest change of the visible area between two frames, in doublings            every motion

Which damage sets off which detector besides its own, by the nature of pictures (`tests/test_failures.py` measures it):
- A far leg that is not drawn and a far leg that is always behind the near one are the same picture: the former sets off
  `same_leg_gait`, legs in step may set off `missing_part`.
- A limb that is not drawn uncovers what was behind it, which can be new pieces: `extra_part`.
- A pasted limb moves the centre of the limb whose shade it has (`same_leg_gait`, `rotation_period`) and can lie over
  another one (`missing_part`).
- A time-warped clip holds nearly still somewhere: `frozen`. Held frames in the midst of a turn: `rotation_period`.
- A clip frozen at a moment when one limb hides another hides it for good: `missing_part`.
`frozen` alone does not set off `heading_error`: standing still is not going the wrong way. A subject that turns the
wrong way evenly has a `heading_error`, not a `rotation_period`; one that does not turn at all has neither.

Limits. One subject. Where a pillar is asked for, the subject is never seen whole: no `extra_part`, `missing_part`,
`rotation_period`, `appearing_vanishing` there. A pillar is looked for only where the motion asks for one. The ground
line assumes the world's layout (`motions.GROUND`) and a zoom that is neutral in the middle of the clip. Which way a
dancer faces is not read.
"""
from motionlab.metrics.failures.courses import heading_error, rotation_period
from motionlab.metrics.failures.evidence import Evidence, observe
from motionlab.metrics.failures.judging import DETECTORS, PERCENTILE, detect_failures
from motionlab.metrics.failures.limbs import clean_limits, extra_part, missing_part, same_leg_gait
from motionlab.metrics.failures.solid import appearing_vanishing, frozen, interpenetration

__all__ = ["DETECTORS", "Evidence", "PERCENTILE", "appearing_vanishing", "clean_limits", "detect_failures", "extra_part",
    "frozen", "heading_error", "interpenetration", "missing_part", "observe", "rotation_period", "same_leg_gait"]
