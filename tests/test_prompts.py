"""Prompts of the protocol: balanced, reproducible, disjoint from every training, with their true clip."""
import pytest

from motionlab.core.errors import MotionLabError
from motionlab.data.prompts import load_prompts
from motionlab.core.protocol import held_out, read_protocol, split_seeds
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


def test_the_second_set_is_near_static_or_unusual():
    prompts = load_prompts("quiet_unusual")
    still = [p.asked["actors"][0]["motion"] in ("spin", "swing", "dance") for p in prompts]
    odd = [held_out(p.asked) for p in prompts]
    assert all(a or b for a, b in zip(still, odd)) and sum(still) > 8 and sum(odd) > 8


def test_transitions_show_bodies_that_travel():
    prompts = load_prompts("transitions", 8)
    assert {p.asked["actors"][0]["motion"] for p in prompts} == {"slide", "pass_behind"} and {p.kind for p in prompts} == {"physics"}


def test_gates_ask_for_what_they_were_taught():
    from motionlab.data.bank import BankConfig, bank_seeds

    learned = load_prompts("gate_overfit")
    assert [p.seed for p in learned] == bank_seeds(BankConfig(split="pretraining", clips=8))
    assert all(p.clip(frames=1).caption == p.text for p in learned)
    asked = [p.asked for p in load_prompts("gate_four")]
    actors = {(a["actors"][0]["species"], a["actors"][0]["motion"]) for a in asked}
    assert actors == {(s, m) for s in ("person", "dog") for m in ("walk", "run")} and not any(a["camera"] for a in asked)


def test_held_out_pairs_are_species_and_colours_of_the_world():
    from motionlab.world.palette import COLOURS
    from motionlab.world.puppets import SPECIES

    for pair in read_protocol()["held_out"]["combinations"]:
        assert pair["species"] in SPECIES and pair["colour"] in COLOURS


@pytest.mark.parametrize("name, n, message", [("tset", 3, "Did you mean 'test'"), ("dev", 1000, "has 64 prompts")])
def test_bad_requests_are_named(name, n, message):
    with pytest.raises(MotionLabError, match=message):
        load_prompts(name, n)
