"""Motion metrics: hybrid motion fidelity in both forms, its base metric, VBench-style dynamics, evenness of change.

Sources: DeT (arXiv 2503.17350) for hybrid motion fidelity, DMT (arXiv 2311.17009) for the base metric, VBench for
dynamic degree and motion smoothness, VTG and AID for the Gini form of smoothness. Where a paper and its released code
differ, both are here under their own names; where either leaves something open, an option names it and says why its
default.

Tracks are (f, n, 2), (x, y) in pixels, numpy or torch; work happens on the tracks' device in their precision. `size`
is (h, w) in pixels. Scores are Python floats. A score that is 0/0 is NaN, never an exception; each docstring says
when.

Tracks that stand still. A zero displacement has no direction, so its cosine is 0/0; `static` chooses what counts:

    'nan'   the 0/0 of the released code: one still step makes the score NaN. Trackers hardly ever return an exact
            zero, exact tracks often do.
    'zero'  cosine 0: the usual epsilon, and the average of what a tracker's noise on a still point would give. Exact
            tracks with still steps then score below 1 against themselves.
    'skip'  steps at which both tracks stand still are left out of the mean (they agree, without direction), steps at
            which one does count 0. A pair that never moves has no cosine.
"""
from motionlab.metrics.motion.checks import seen_tracks
from motionlab.metrics.motion.dynamics import DynamicDegree, dynamic_degree, motion_smoothness
from motionlab.metrics.motion.evenness import adjacent_distances, consistency, gini, gini_smoothness
from motionlab.metrics.motion.fidelity import mf_dmt, mf_paper, mf_release
from motionlab.metrics.motion.points import points_in_mask, points_in_mask_box
from motionlab.metrics.motion.track_distance import discrete_frechet

__all__ = ["DynamicDegree", "adjacent_distances", "consistency", "discrete_frechet", "dynamic_degree", "gini", "gini_smoothness",
    "mf_dmt", "mf_paper", "mf_release", "motion_smoothness", "points_in_mask", "points_in_mask_box", "seen_tracks"]
