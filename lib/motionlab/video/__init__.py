"""Real clips in and out, and the folder layout of MTBench.

`read_video` turns any file that PyAV reads into frames with their true times; `write_mp4` and `write_gif` write
atomically. Whatever is wrong with a file (empty, cut off, sound only, damaged in the middle) is a `MotionLabError` that
says what to do.

Shapes: frames uint8 `(f, h, w, 3)` RGB, times float64 `(f,)` in seconds from the start of the stream.
"""
from motionlab.video.clip import RealClip, check_frames
from motionlab.video.cuts import cuts_said, find_cuts
from motionlab.video.mtbench import MTBenchClip, read_mtbench
from motionlab.video.probing import Probe, probe_video
from motionlab.video.reading import read_video
from motionlab.video.samples import find_sample_clip
from motionlab.video.shots import Shot, find_shots, read_shot, uneven_said
from motionlab.video.tensors import as_frames, as_video, contact_sheet
from motionlab.video.writing import write_gif, write_mp4

__all__ = ["MTBenchClip", "Probe", "RealClip", "Shot", "as_frames", "as_video", "check_frames", "contact_sheet", "cuts_said", "find_cuts",
    "find_sample_clip", "find_shots", "probe_video", "read_mtbench", "read_shot", "read_video", "uneven_said", "write_gif", "write_mp4"]
