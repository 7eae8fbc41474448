"""The world's colours: a named palette, few backgrounds, and one shade per limb that stays readable without a network.

Low entropy in appearance is deliberate (a base of a few million parameters must learn it in an hour); the `clutter`
dial of a scene adds texture where an experiment needs more.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from motionlab.core.errors import one_of

COLOURS = {
    "red": (0.96, 0.32, 0.30), "orange": (1.00, 0.45, 0.08), "yellow": (1.00, 0.92, 0.12), "green": (0.20, 0.80, 0.22),
    "blue": (0.14, 0.35, 1.00), "purple": (0.68, 0.24, 0.90), "pink": (1.00, 0.38, 0.69), "brown": (0.65, 0.27, 0.12),
}

# limb shade: (mix towards black, mix towards white, tint, tint strength). Found by a random search that maximises the
# smallest RGB distance between limbs of one creature, and between limbs and every background, over all colours
# (`tests/test_world.py` holds it above 35 of 255). Left and right of a pair never share a colour.
WARM, COOL = (1.0, 0.86, 0.45), (0.16, 0.20, 0.52)
SHADES = {
    "body": (0.00, 0.04, WARM, 0.05), "head": (0.00, 0.45, WARM, 0.00), "near": (0.19, 0.00, WARM, 0.00),
    "far": (0.48, 0.00, COOL, 0.00), "near2": (0.22, 0.05, WARM, 0.53), "far2": (0.35, 0.22, COOL, 0.37),
    "tail": (0.53, 0.22, WARM, 0.24), "mark": (0.93, 0.05, COOL, 0.35), "eye": (0.95, 0.16, COOL, 0.20),
    "rim": (0.46, 0.22, COOL, 0.11), "pale": (0.00, 0.45, WARM, 0.00),
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
    "meadow": Place(((0.66, 0.87, 0.93), (0.78, 0.88, 0.96)), (0.70, 0.80, 0.70),
                    ((0.82, 0.87, 0.66), (0.76, 0.89, 0.52)), "over the meadow"),
    "desert": Place(((0.94, 0.90, 0.80), (0.93, 0.93, 0.93)), (0.86, 0.87, 0.74),
                    ((0.92, 0.89, 0.79), (0.86, 0.89, 0.70)), "through the desert"),
    "snow": Place(((0.69, 0.79, 0.89), (0.91, 0.94, 0.96)), (0.78, 0.90, 0.90),
                  ((0.94, 0.95, 0.99), (0.86, 0.88, 0.93)), "in the snow"),
    "sea": Place(((0.64, 0.89, 0.84), (0.45, 0.70, 0.79)), (0.38, 0.63, 0.78),
                 ((0.72, 0.90, 0.80), (0.76, 0.78, 0.80)), "under the sea"),
    "night": Place(((0.16, 0.19, 0.28), (0.19, 0.26, 0.38)), (0.13, 0.13, 0.27),
                   ((0.20, 0.25, 0.38), (0.18, 0.21, 0.32)), "in the night"),
    "dusk": Place(((0.74, 0.77, 0.93), (0.91, 0.87, 0.86)), (0.75, 0.70, 0.77),
                  ((0.72, 0.77, 0.84), (0.77, 0.73, 0.76)), "at dusk"),
}
