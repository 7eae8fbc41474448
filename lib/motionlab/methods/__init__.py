"""One `Method` per file: what it attaches, which sidecars it wants, its loss, how it samples. A new one is a file and a line here."""
from __future__ import annotations

import importlib

from motionlab.core import config
from motionlab.core.errors import one_of

METHODS = {
    "plain": "motionlab.methods.plain:Plain",
    "lora": "motionlab.methods.lora:LoRA",
    "oracle": "motionlab.methods.oracle:Oracle",
    "videojam": "motionlab.methods.videojam:VideoJAM",
    "det": "motionlab.methods.det:DeT",
    "motion_inversion": "motionlab.methods.motion_inversion:MotionInversion",
    "motion_director": "motionlab.methods.motion_director:MotionDirector",
    "dmt": "motionlab.methods.dmt:DMT",
    "sma": "motionlab.methods.sma:SMA",
    "vtg": "motionlab.methods.vtg:VTG",
    "between": "motionlab.methods.between:Between",
    "fades": "motionlab.methods.fades:Fades",
    "morphing": "motionlab.methods.morphing:Morphing",
    "sam2videox": "motionlab.methods.sam2videox:SAM2VideoX",
    "repa": "motionlab.methods.repa:REPA",
    "mask": "motionlab.methods.mask_head:MaskSupervised",
}


def method_class(name: str) -> type:
    """The class of a method.

    Raises:
        MotionLabError: an unknown name; the nearest is named.
    """
    module, _, kind = METHODS[one_of(name, METHODS, "method")].partition(":")
    return getattr(importlib.import_module(module), kind)


def open_method(name: str, **settings):
    """A method with these settings, others by default.

    Raises:
        MotionLabError: an unknown name or setting (the nearest is named), a value of another type.
    """
    return config.from_values(method_class(name), settings, f"settings of method {name}")
