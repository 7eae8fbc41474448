"""The world's grammar: about sixty words, one sentence per scene, and its exact inverse."""
from __future__ import annotations

import re

from motionlab.core.errors import MotionLabError, nearest
from motionlab.world.motions import MOTIONS
from motionlab.world.palette import COLOURS, PLACES
from motionlab.world.puppets import SPECIES

TURN = {"right": "clockwise", "left": "counterclockwise"}
CAMERA = ("", "the camera pans left", "the camera pans right", "the camera zooms in", "the camera zooms out")


def describe(scene) -> dict:
    """What a caption can say of a scene: {"actors": [{species, colour, motion, heading}], "place", "camera"}."""
    actors = [{"species": a.species, "colour": a.colour, "motion": a.motion,
               "heading": a.heading if MOTIONS[a.motion].says_heading else None} for a in scene.actors]
    return {"actors": actors, "place": scene.place, "camera": _camera(scene.camera)}


def caption(scene) -> str:
    """The sentence of a scene, e.g. "a red dog runs to the left over the meadow, the camera zooms in"."""
    return sentence(describe(scene))


def sentence(parsed: dict) -> str:
    """Inverse of `parse_caption`; a heading of None is not said, also where the motion has one."""
    actors = " and ".join(_actor(a) for a in parsed["actors"])
    camera = f", {parsed['camera']}" if parsed["camera"] else ""
    return f"{actors} {PLACES[parsed['place']].phrase}{camera}"


def _camera(camera):
    if camera.zoom:
        return CAMERA[3] if camera.zoom > 0 else CAMERA[4]
    if camera.pan[0]:
        return CAMERA[2] if camera.pan[0] > 0 else CAMERA[1]
    return ""


def _article(word):
    return "an" if word[0] in "aeiou" else "a"


def _actor(a):
    motion = MOTIONS[a["motion"]]
    heading = "" if a["heading"] is None else {"to the": f" to the {a['heading']}", "facing": f" facing {a['heading']}",
                                               "turning": f" {TURN.get(a['heading'], '')}", "": ""}[motion.says_heading]
    return f"{_article(a['colour'])} {a['colour']} {a['species']} {motion.verb}{heading}"


def vocabulary() -> list[str]:
    """All words of the grammar, sorted."""
    text = [m.verb for m in MOTIONS.values()] + [p.phrase for p in PLACES.values()] + [*CAMERA, *SPECIES, *COLOURS]
    small = {"a", "an", "and", "to", "the", "facing", "left", "right", *TURN.values()}
    return sorted(set(" ".join(text).split()) | small)


def parse_caption(text: str) -> dict:
    """The parsed form (as `describe`) of a sentence of the grammar.

    Raises:
        MotionLabError: a word outside the grammar (the nearest is named), or words in an order it does not know.
    """
    words = re.findall(r"[a-z]+", text.lower())
    known = vocabulary()
    for word in words:
        if word not in known:
            raise MotionLabError(f"The world's grammar has no word '{word}'.{nearest(word, known)}",
                                 fix=f"It has: {', '.join(known)}.")
    body, _, camera = text.lower().strip().rstrip(".").partition(", ")
    place = next((name for name, p in PLACES.items() if body.endswith(p.phrase)), None)
    if place is None or camera not in CAMERA:
        raise MotionLabError(f"Cannot read '{text}': it must end with a place{' and a camera move' if camera else ''}.",
                             fix="For example: 'a red dog runs to the left over the meadow, the camera zooms in'.")
    actors = [_parse_actor(part, text) for part in body[:-len(PLACES[place].phrase)].strip().split(" and ")]
    return {"actors": actors, "place": place, "camera": camera}


def _parse_actor(part, text):
    match = re.fullmatch(rf"an? ({'|'.join(COLOURS)}) ({'|'.join(SPECIES)}) (.+)", part.strip())
    if match:
        colour, subject, rest = match.groups()
        for name, motion in MOTIONS.items():
            for heading in ("left", "right", None) if motion.says_heading else (None,):
                actor = {"species": subject, "colour": colour, "motion": name, "heading": heading}
                if _actor(actor).split(" ", 3)[3] == rest and name in SPECIES[subject].motions:
                    return actor
    raise MotionLabError(f"Cannot read '{part}' in '{text}'.",
                         fix="Say: a <colour> <species> <motion> [to the left|right], for example "
                             "'a blue fish swims to the right'.")
