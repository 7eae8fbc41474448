"""Prompts of the protocol: balanced, reproducible, disjoint from every training, with their true clip."""
import pytest

from motionlab.errors import MotionLabError
from motionlab.experiments.prompts import load_prompts
from motionlab.ledger import held_out, read_protocol, split_seeds
from motionlab.world.motions import KINDS, MOTIONS


def test_categories_take_turns_and_fit_the_motion():
    prompts = load_prompts("test", 64)
    assert [p.kind for p in prompts] == list(KINDS) * 16
    assert all(MOTIONS[p.asked["actors"][0]["motion"]].kind == p.kind for p in prompts)
    assert len({p.id for p in prompts}) == 64


def test_a_shorter_list_is_the_beginning_of_a_longer_one():
    assert load_prompts("dev", 8) == load_prompts("dev", 32)[:8]


def test_the_clip_of_a_prompt_is_what_the_prompt_says():
    for prompt in load_prompts("examples", 8):
        assert prompt.clip(frames=5).caption == prompt.text


def test_sets_share_no_seed_and_dev_shows_no_held_out_pair():
    test, dev, unseen = ({p.seed for p in load_prompts(name)} for name in ("test", "dev", "held_out"))
    assert not test & dev and not test & unseen and dev <= set(split_seeds("dev", None))
    assert not any(held_out(p.asked) for p in load_prompts("dev"))
    assert any(held_out(p.asked) for p in load_prompts("held_out"))


def test_held_out_pairs_are_species_and_colours_of_the_world():
    from motionlab.world.palette import COLOURS
    from motionlab.world.puppets import SPECIES

    for pair in read_protocol()["held_out"]["combinations"]:
        assert pair["species"] in SPECIES and pair["colour"] in COLOURS


@pytest.mark.parametrize("name, n, message", [("tset", 3, "Did you mean 'test'"), ("dev", 1000, "has 64 prompts")])
def test_bad_requests_are_named(name, n, message):
    with pytest.raises(MotionLabError, match=message):
        load_prompts(name, n)
