"""A small world whose motion is known exactly: scenes as data, puppets, a renderer, captions -> `Clip`.

Units: scene coordinates have the frame height as unit, x to the right in [0, aspect], y *down* in [0, 1]; time is
in seconds. A scene therefore renders at any size and frame rate, with the same truth in relative units.
"""
from motionlab.world.captions import caption, parse_caption, vocabulary
from motionlab.world.clip import Clip
from motionlab.world.render import render
from motionlab.world.scenes import Actor, Camera, Occluder, Scene, random_scene

__all__ = ["Actor", "Camera", "Clip", "Occluder", "Scene", "caption", "parse_caption", "random_scene", "render",
           "vocabulary"]
