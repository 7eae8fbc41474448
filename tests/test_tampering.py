"""The tamper campaign, each change as it is; covered up and committed, those that history or recomputation must still name."""
from __future__ import annotations

import shutil

import pytest

import tampering
from motionlab.ledger.verify import verify

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
# What looks like honest work once every list was made anew: only a reader of MANIFEST's diff can ask about it.
LEFT_TO_THE_READER = {
    "what a criterion bears on", "the protocol", "a parameter of a tier", "a row of a pilot", "a number in a model card",
    "a curve cut short", "a sheet of samples renamed", "a file that nothing lists", "a line taken out of MANIFEST",
    "lines of MANIFEST in another order", "MANIFEST taken away",
}
COVERED = [one for one in tampering.CHANGES if one.says not in LEFT_TO_THE_READER]


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return tampering.checkout(tmp_path_factory.mktemp("tampering") / "template")


def test_there_are_forty_and_the_untouched_checkout_is_sound(template):
    assert len(tampering.CHANGES) >= 40 and verify(template) == []
    assert {one.says for one in tampering.CHANGES} >= LEFT_TO_THE_READER


@pytest.mark.parametrize("one", tampering.CHANGES, ids=lambda one: one.says)
def test_a_single_change_is_named(template, one):
    said, _ = tampering.tried(template, one, covered=False)
    assert tampering.naming(said, one), said


@pytest.mark.parametrize("one", COVERED[::3], ids=lambda one: one.says)
def test_a_change_is_named_after_everything_was_written_anew_and_committed(template, one):
    said, _ = tampering.tried(template, one, covered=True)
    assert tampering.naming(said, one), said
