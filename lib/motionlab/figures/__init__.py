"""Figures: one claim each, uncertainty drawn, readable in greyscale and by colour-blind readers. No global state.

Functions that draw return a matplotlib `Figure`; functions that paint return uint8 frames (f, h, w, 3).
"""
from motionlab.figures.axes import film, interval
from motionlab.figures.inside import attention_pictures, component_paths, key_frame_mass
from motionlab.figures.metrics import ladder, response_matrix, responses, teacher_errors
from motionlab.figures.painting import enlarge, flow_frames, limb_frames, show, tile, track_frames, truth_frames
from motionlab.figures.series import arms, by_quantile, columns, curve_panels, curves, distances, end_to_end, seed_spread, training_curves
from motionlab.figures.style import ACCENT, CHANGE_LABELS, DARK, METRIC_LABELS, NO_REFERENCE, REFERENCE, SERIES, SOFT, STYLES

__all__ = ["ACCENT", "CHANGE_LABELS", "DARK", "METRIC_LABELS", "NO_REFERENCE", "REFERENCE", "SERIES", "SOFT", "STYLES", "arms",
    "attention_pictures", "by_quantile", "columns", "component_paths", "curve_panels", "curves", "distances", "end_to_end", "enlarge",
    "film", "flow_frames", "interval", "key_frame_mass", "ladder", "limb_frames", "response_matrix", "responses", "seed_spread",
    "show", "teacher_errors", "tile", "track_frames", "training_curves", "truth_frames"]
