"""Labels, colours and line styles: one place for all figures."""
from __future__ import annotations

CHANGE_LABELS = {
    "identity": "itself", "dropped_limb": "one limb stops / is missing", "amplitude_half": "half amplitude",
    "amplitude_more": "1.5x amplitude", "spatial_shift": "shifted by 20 %", "speed_half": "half speed",
    "speed_double": "double speed", "jitter": "jitter, 1 px of 48", "frame_shuffle": "frames shuffled",
    "mirror": "mirrored", "time_reversal": "played backwards", "frozen": "frozen", "another_clip": "another clip",
}
METRIC_LABELS = {
    "mf_paper": "MF (paper)", "mf_release": "MF (release)", "mf_dmt": "DMT",
    "dynamic_top5": "dynamic\ndegree\n(top 5 %)", "smoothness": "smoothness\n(VBench-\nstyle)",
    "vtg_smoothness": "smoothness\n(VTG, 1-G)", "roughness": "consistency\n(AID; less\nis better)",
}
REFERENCE = ("mf_paper", "mf_release", "mf_dmt")
NO_REFERENCE = ("dynamic_top5", "smoothness", "vtg_smoothness", "roughness")
SCORE_AXES = {                                          # what a reader is told about the way a score points
    "dynamic_top5": "pixels per frame\nmore motion →", "smoothness": "score\ncalled better →",
    "vtg_smoothness": "score\ncalled better →", "roughness": "mean RMSE of neighbours\n← called better",
}
DARK, ACCENT, SOFT = "#22303c", "#c4512d", "#8fa3b0"
SERIES = (DARK, ACCENT, "#3f7fb5", "#8a6bb1", "#5b8c5a", "#b59a3f")
STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))     # told apart in greyscale too
