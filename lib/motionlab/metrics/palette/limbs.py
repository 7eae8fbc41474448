"""What a species is made of, as the reader knows it."""
from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from motionlab.world.puppets import species as anatomy_of


@dataclass(frozen=True)
class Limb:
    """A limb as the reader tells it: the groups it joins, its shades, and the limb it hangs on where that decides."""

    name: str
    groups: tuple[str, ...]
    slots: tuple[str, ...]
    anchor: str = ""


@lru_cache(maxsize=None)
def limb_table(species: str) -> tuple[Limb, ...]:
    """The limbs that can be read of a species, in drawing order.

    Raises:
        MotionLabError: unknown species.
    """
    parts = anatomy_of(species).parts
    groups = list(dict.fromkeys(p.group for p in parts))
    slots = {g: tuple(dict.fromkeys(p.slot for p in parts if p.group == g)) for g in groups}
    parent = {g: _parent_group(parts, g) for g in groups}
    out, done = [], set()
    for group in groups:
        if group in done:
            continue
        same = [g for g in groups if slots[g][0] == slots[group][0]]
        anchors = [parent[g] for g in same]
        apart = len(set(anchors)) == len(same) and all(a and a not in same and _unique(a, slots) for a in anchors)
        done.update(same)
        if len(same) == 1 or not apart:
            out.append(Limb("+".join(same), tuple(same), tuple(dict.fromkeys(s for g in same for s in slots[g]))))
        else:
            out += [Limb(g, (g,), slots[g], parent[g]) for g in same]
    return tuple(out)


def _parent_group(parts, group):
    """The limb that a limb hangs on, "" for the root."""
    by_name = {p.name: p for p in parts}
    for p in parts:
        if p.group == group and p.parent and by_name[p.parent].group != group:
            return by_name[p.parent].group
    return ""


def _unique(group, slots):
    return sum(slots[g][0] == slots[group][0] for g in slots) == 1


def limb_links(species: str) -> tuple[tuple[int, int], ...]:
    """Pairs of indices into `limb_table` of limbs that are joined at a joint."""
    parts, limbs = anatomy_of(species).parts, limb_table(species)
    index = {g: i for i, limb in enumerate(limbs) for g in limb.groups}
    pairs = {(index[_parent_group(parts, g)], i) for g, i in index.items() if _parent_group(parts, g)}
    return tuple(sorted((a, b) for a, b in pairs if a != b))
