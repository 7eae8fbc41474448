"""Figures: one claim each, uncertainty drawn, readable in greyscale and by colour-blind readers. No global state.

Functions that draw return a matplotlib `Figure`; functions that paint return uint8 frames (f, h, w, 3). Arms and metrics
are given by their names in the table; `style` says how they are called and coloured.
"""
from motionlab.figures.axes import film, interval, stamped, titled
from motionlab.figures.damage import dose_response, structure_and_motion
from motionlab.figures.dots import arms, columns, distances, seed_spread
from motionlab.figures.inside import attention_pictures, component_paths, key_frame_mass
from motionlab.figures.lines import by_quantile, curve_panels, curves, end_to_end, training_curves
from motionlab.figures.matching import best_arm, gap, mean_of, rungs, windows
from motionlab.figures.metrics import NO_REFERENCE, REFERENCE, ladder, response_matrix, responses, teacher_errors
from motionlab.figures.painting import enlarge, flow_frames, limb_frames, mask_frames, show, tile, track_frames, truth_frames
from motionlab.figures.source import source
from motionlab.figures.style import ACCENT, ARMS, DARK, METRICS, PALETTE, SOFT, labels, look, metric
from motionlab.figures.transfer import best_of, by_difficulty, difference, leader, leaks, plane, settings, tiers
from motionlab.figures.transitions import beside_printed, contrasts, edges_by_frame, frame_maps, transition_plane
from motionlab.figures.way import way
from motionlab.figures.ways import Seen, sampled_points, way_frames, ways

__all__ = ["ACCENT", "ARMS", "DARK", "METRICS", "NO_REFERENCE", "PALETTE", "REFERENCE", "SOFT", "Seen", "arms", "attention_pictures",
    "beside_printed", "best_arm", "best_of", "by_difficulty", "by_quantile", "columns", "component_paths", "contrasts",
    "curve_panels", "curves", "difference", "distances", "dose_response", "edges_by_frame", "end_to_end", "enlarge", "film",
    "flow_frames", "frame_maps", "gap", "interval", "key_frame_mass", "labels", "ladder", "leader", "leaks", "limb_frames",
    "look", "mask_frames", "mean_of", "metric", "plane", "response_matrix", "responses", "rungs", "sampled_points", "seed_spread",
    "settings", "show", "source", "stamped", "structure_and_motion", "teacher_errors", "tiers", "tile", "titled", "track_frames",
    "training_curves", "transition_plane", "truth_frames", "way", "way_frames", "ways", "windows"]
