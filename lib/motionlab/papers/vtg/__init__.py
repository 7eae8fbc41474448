"""VTG: versatile transition generation (Yang et al., arXiv 2508.01698): the clip between two given frames.

In the paper's order: what sampling begins with (`interpolation`: noise, LoRAs and text of the two ends, frame by frame), the two
branches (`motion`: rotation, L_BMP, fusion), alignment with a self-supervised encoder (`alignment`: L_RAR). Symbols as in the card:
N frames, n = 1..N, J reversal in time, A a temporal attention map, lam_n a frame's share of the last end. The kit's time runs from
noise (t = 0) to data (t = 1) with v = data - noise, so the card's s is 1 - t and its u is -v; nothing else changes.
What the paper leaves open (card 7.2, O1 to O16) is an option with the card's default; it is said where.
"""
from motionlab.papers.vtg.alignment import Projector, rar_loss, weight_of_share
from motionlab.papers.vtg.interpolation import (MIXES, STARTS, frame_lerp, frame_slerp, frame_weights, invert, low_rank_mix, slerp,
                                                start_noise, text_of_frames)
from motionlab.papers.vtg.motion import FUSIONS, bmp_loss, fuse, fusion_weights, reverse, rotated

__all__ = ["FUSIONS", "MIXES", "STARTS", "Projector", "bmp_loss", "frame_lerp", "frame_slerp", "frame_weights", "fuse",
           "fusion_weights", "invert", "low_rank_mix", "rar_loss", "reverse", "rotated", "slerp", "start_noise", "text_of_frames",
           "weight_of_share"]
