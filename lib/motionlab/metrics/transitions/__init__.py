"""What a clip between two given frames is judged by. Knows pairs of the world, not how a clip was made.

    plane        edge and jump: is the middle crisp, is the way even? mix and flicker beside them
    pose         limbs against the world's own, and a run against the run with its ends swapped
    published    scores of papers: FID against the ends, path length, Gini smoothness, completion by thresholds
    completion   transition completion in TC-Bench's form, by readers or by a file of answers
    rows         all of them, one row per pair
"""
from motionlab.metrics.transitions.completion import completed, read_answers, tc_score
from motionlab.metrics.transitions.plane import background_flicker, edge, edge_fall, edge_strengths, jump, middle_frames, mix
from motionlab.metrics.transitions.pose import limb_distance, order_gap, pose_error
from motionlab.metrics.transitions.published import fid_of_ends, gini, path_length, perceptual_steps, smoothness
from motionlab.metrics.transitions.rows import transition_rows

__all__ = ["background_flicker", "completed", "edge", "edge_fall", "edge_strengths", "fid_of_ends", "gini", "jump", "limb_distance",
           "middle_frames", "mix", "order_gap", "path_length", "perceptual_steps", "pose_error", "read_answers", "smoothness",
           "tc_score", "transition_rows"]
