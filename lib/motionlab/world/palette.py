"""The world's colours: a named palette, few backgrounds, and one shade per limb that stays readable without a network.

Low entropy in appearance is deliberate (a base of a few million parameters must learn it in an hour); the `clutter`
dial of a scene adds texture where an experiment needs more.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from motionlab.errors import one_of

COLOURS = {
    "red": (0.86, 0.22, 0.20), "orange": (0.95, 0.55, 0.12), "yellow": (0.93, 0.82, 0.22), "green": (0.30, 0.70, 0.32),
    "blue": (0.24, 0.45, 0.90), "purple": (0.58, 0.34, 0.80), "pink": (0.94, 0.48, 0.70), "brown": (0.55, 0.36, 0.22),
}

# limb shade: (mix towards black, mix towards white, tint, tint strength). Near limbs lean warm and light, far limbs
# dark and cool, so that left and right of a pair never share a colour.
WARM, COOL = (1.0, 0.86, 0.45), (0.16, 0.20, 0.52)
SHADES = {
    "body": (0.00, 0.00, WARM, 0.00), "head": (0.00, 0.34, WARM, 0.10), "near": (0.26, 0.00, WARM, 0.00),
    "far": (0.50, 0.00, COOL, 0.30), "near2": (0.00, 0.12, WARM, 0.55), "far2": (0.30, 0.00, COOL, 0.62),
    "tail": (0.42, 0.00, WARM, 0.26), "mark": (0.86, 0.00, COOL, 0.10), "eye": (0.94, 0.00, COOL, 0.00),
    "rim": (0.45, 0.00, COOL, 0.00), "pale": (0.00, 0.66, WARM, 0.06),
}


def shade(colour: str, slot: str) -> np.ndarray:
    """RGB (3,) in [0, 1] of one limb shade of a named colour."""
    dark, light, tint, strength = SHADES[slot]
    rgb = np.array(COLOURS[one_of(colour, COLOURS, "colour")])
    rgb = rgb * (1 - dark)
    rgb = rgb + (1 - rgb) * light
    return rgb + (np.array(tint) - rgb) * strength


@dataclass(frozen=True)
class Place:
    """A background: vertical sky gradient, one row of hills, ground with two alternating tones."""

    sky: tuple[tuple[float, float, float], tuple[float, float, float]]
    hills: tuple[float, float, float]
    ground: tuple[tuple[float, float, float], tuple[float, float, float]]
    phrase: str


PLACES = {
    "meadow": Place(((0.62, 0.82, 0.97), (0.86, 0.94, 0.98)), (0.62, 0.80, 0.62), ((0.74, 0.86, 0.62), (0.68, 0.81, 0.56)), "over the meadow"),
    "desert": Place(((0.99, 0.93, 0.80), (0.99, 0.97, 0.90)), (0.93, 0.83, 0.66), ((0.97, 0.89, 0.72), (0.92, 0.83, 0.65)), "through the desert"),
    "snow": Place(((0.74, 0.84, 0.95), (0.90, 0.95, 0.99)), (0.84, 0.90, 0.96), ((0.98, 0.99, 1.00), (0.91, 0.94, 0.98)), "in the snow"),
    "sea": Place(((0.60, 0.86, 0.88), (0.48, 0.76, 0.82)), (0.40, 0.68, 0.74), ((0.80, 0.87, 0.78), (0.74, 0.81, 0.72)), "under the sea"),
    "night": Place(((0.13, 0.15, 0.34), (0.24, 0.26, 0.46)), (0.17, 0.18, 0.36), ((0.28, 0.29, 0.46), (0.23, 0.24, 0.40)), "in the night"),
    "dusk": Place(((0.80, 0.72, 0.90), (0.97, 0.86, 0.86)), (0.70, 0.62, 0.76), ((0.78, 0.71, 0.80), (0.72, 0.65, 0.75)), "at dusk"),
}
