"""Can these criteria be judged at all? What a claims.yaml is refused for beyond its form, and what a record may not be published for.

Controls exist, in no circle; minimum effects can be reached, and seen; structure is judged by both readers, beside motion kept.
"""
from __future__ import annotations

import graphlib
from collections.abc import Iterable
from pathlib import Path

from motionlab.core.errors import MotionLabError, located, nearest, one_of
from motionlab.core.protocol import RULED, protocol_version
from motionlab.core.yamls import read_yaml
from motionlab.ledger import detectable
from motionlab.ledger.criteria import Claim, Combined, Criterion, PaperClaims, papers

READERS, PALETTE, MOTION = ("structure_0", "structure_1"), "structure", "move_ok"


def check_sound(claims: PaperClaims, root: Path) -> None:
    """Refuse a file whose claims name controls that do not exist, belong to a protocol that is not there yet, or ask for what could
    not be reached or seen. Under a ruling a claim may ask for that: it is then never said to hold or fail.

    Raises:
        MotionLabError: naming the claim.
    """
    version, power = protocol_version(root), detectable.read(root)
    for claim in claims.claims.values():
        with located(f"reproductions/{claims.paper}/claims.yaml: claim '{claim.id}'"):
            for control in claim.control:
                check_known(control, claims, root)
            if claim.status == "final" and version is not None and claim.protocol > version:
                raise MotionLabError(f"it is final under protocol {claim.protocol}, but protocol.yaml is at version {version}.",
                                     fix=f"Set status: draft, or protocol: {version}.")
            if claim.criterion and claim.protocol >= RULED:
                check_structure(claim.criterion)
            if power and claim.criterion and claim.status == "final" and not claim.ruling:
                for leaf in claim.criterion.leaves():
                    detectable.check_leaf(leaf, *power)


def check_known(control: str, claims: PaperClaims, root: Path) -> None:
    """Refuse a control that no claims.yaml has; the nearest is named."""
    paper = control.partition(".")[0]
    one_of(paper, papers(root), f"paper of the control '{control}':")
    known = list(claims.claims)
    if paper != claims.paper:
        known = list((read_yaml(root / "reproductions" / paper / "claims.yaml") or {}).get("claims") or {})
    if control not in known:
        raise MotionLabError(f"its control '{control}' is no claim.{nearest(control, known)}", fix=f"Claims there: {', '.join(known)}.")


def check_order(claims: Iterable[Claim]) -> None:
    """Refuse controls in a circle: each would wait for the other."""
    try:
        graphlib.TopologicalSorter({claim.id: claim.control for claim in claims}).prepare()
    except graphlib.CycleError as error:
        raise MotionLabError(f"These claims are each other's controls: {' <- '.join(error.args[1])}.",
                             fix="Take one `control` out.") from error


def check_structure(part: Criterion | Combined, beside: tuple[Criterion, ...] = (), readers: tuple[Criterion, ...] = ()) -> None:
    """Refuse a structure criterion that one reader judges alone, or that motion given up could meet: easier motion breaks fewer limbs.

    Args:
        beside: single tests that must hold together with this part. readers: those that must say the same.

    Raises:
        MotionLabError: naming the metric and the condition that is missing.
    """
    if isinstance(part, Combined):
        together = beside + tuple(conditions(part)) if part.how != "any" else beside
        for one in part.parts:
            check_structure(one, together, tuple(part.parts) if part.how == "agree" else ())
    elif part.metric == PALETTE or part.metric in READERS:
        check_readers(part, beside, readers)
        check_motion_kept(part, beside)


def check_readers(leaf: Criterion, beside: tuple[Criterion, ...], readers: tuple[Criterion, ...]) -> None:
    """Both learned readers must be asked the same, under `agree`; the palette's word may only stand beside theirs."""
    asked = beside if leaf.metric == PALETTE else readers
    agreeing = {one.metric for one in asked if isinstance(one, Criterion) and contrast(one) == contrast(leaf)}
    if not set(READERS) <= agreeing:
        what = f"{leaf.metric} of {leaf.arm}{f' - {leaf.minus}' if leaf.minus else ''}"
        raise MotionLabError(f"its structure criterion ({what}) is judged by one reader alone.",
                             fix=f"Write agree: [{{metric: {READERS[0]}, ...}}, {{metric: {READERS[1]}, ...}}], the same question to both.")


def check_motion_kept(leaf: Criterion, beside: tuple[Criterion, ...]) -> None:
    """Less structure error than another arm's counts only beside a bound on how much less the arm does what was asked."""
    if leaf.minus is None or leaf.within[1] is None:
        return
    if not any(one.metric == MOTION and contrast(one) == contrast(leaf) and one.within[0] is not None for one in beside):
        raise MotionLabError(f"its structure criterion ({leaf.arm} - {leaf.minus}) has no condition on {MOTION}, so that easier motion "
                             "could meet it.", fix=f"Add beside it, under all: {{raw: {leaf.raw}, metric: {MOTION}, arm: {leaf.arm}, "
                             f"minus: {leaf.minus}, within: [-0.07, null]}}.")


def conditions(part: Criterion | Combined) -> list[Criterion]:
    """The single tests that all must hold where this part does."""
    if isinstance(part, Criterion):
        return [part]
    return [leaf for one in part.parts for leaf in conditions(one)] if part.how != "any" else []


def contrast(leaf: Criterion) -> tuple:
    """What a single test compares, whatever by."""
    return leaf.raw, leaf.arm, leaf.minus, leaf.minus_best, leaf.over, leaf.against, str(sorted(leaf.where.items()))


def protocol_of(record: dict) -> int:
    """The version of the protocol that a record was measured under; records of before 7 do not say, and count as 6."""
    return record.get("protocol") or RULED - 1


def reading_problems(claim: Claim, record: dict) -> list[str]:
    """What forbids that a record counts, though its numbers are right: no control named, or one dropped since it was measured."""
    if claim.about == "paper" and protocol_of(record) >= RULED > claim.protocol:
        return [f"it was measured under protocol {protocol_of(record)}, but its criterion belongs to protocol {claim.protocol}; name its "
                f"control, set protocol: {protocol_of(record)} in claims.yaml and raise its version."]
    dropped = [one for one in record.get("control", []) if one not in claim.control]
    return [f"its control {one} was dropped after it was measured; name it again, or measure under a new version." for one in dropped]
