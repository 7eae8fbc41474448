"""The small video DiT and its text, at tiny sizes."""
import json
from dataclasses import asdict, replace

import pytest
import torch

from motionlab.core.config import from_values
from motionlab.core.errors import MotionLabError
from motionlab.core.yamls import parse_yaml
from motionlab.models.small import backbone as B
from motionlab.models.small.codec import Codec, CodecConfig
from motionlab.models.small.text import DROPPED, NULL, PAD, Grammar
from motionlab.world import caption, random_scene
from small import gaussian

TINY = B.BackboneConfig(d=32, layers=2, heads=2, channels=3, height=4, width=6, max_frames=7, d_text=16, d_time=16)
TEXT = ["a red dog runs to the left over the meadow, the camera zooms in", "an orange bird flies to the right at dusk"]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def tiny():
    return B.Backbone(TINY).eval().requires_grad_(False)


def inputs(model, b=2, f=3):
    c = model.config
    x = gaussian((b, f, c.channels, c.height, c.width), seeded())
    return x, torch.linspace(0.1, 0.9, b), model.grammar.encode((TEXT * b)[:b])


# --- text

def test_grammar_reads_every_caption_back():
    grammar = Grammar()
    said = [caption(random_scene(seed, actors=1 + seed % 2)) for seed in range(60)]
    tokens = grammar.encode(said)
    assert tokens.shape == (60, 32) and tokens.max() < len(grammar) and grammar.decode(tokens) == said
    assert torch.equal(grammar.encode(""), grammar.null(1)) and grammar.null(1)[0, :2].tolist() == [NULL, PAD]


@pytest.mark.parametrize("text, says", [
    ("a red dgo runs to the left over the meadow", "Did you mean 'dog'"),
    ("a red dog over the meadow runs", "must end with a place"),
    (" and ".join(["a red ball goes behind a pillar to the left"] * 3) + " over the meadow", "has 35 words")])
def test_grammar_refuses(text, says):
    with pytest.raises(MotionLabError, match=says):
        Grammar().encode(text)


def test_dropout_of_text_and_attributes():
    grammar, tokens = Grammar(), Grammar().encode(TEXT)
    generator = seeded()
    before = generator.get_state()
    assert torch.equal(grammar.drop(tokens, generator, text=0, attribute=0), tokens)
    assert torch.equal(generator.get_state(), before)
    assert torch.equal(grammar.drop(tokens, seeded(), text=1, attribute=0), grammar.null(2))
    gone = grammar.decode(grammar.drop(tokens, seeded(), text=0, attribute=1))
    assert {word for row in gone for word in row.replace(",", "").split()} == {"<dropped>"}       # no word gives it away
    many = tokens[:1].expand(4000, -1)
    dropped = grammar.drop(many, seeded())
    null = (dropped[:, 0] == NULL).float().mean()
    dog = (dropped[dropped[:, 0] != NULL][:, 2] == DROPPED).float().mean()
    assert abs(null - 0.15) < 0.02 and abs(dog - 0.05) < 0.015
    colour = dropped[dropped[:, 0] != NULL][:, :2] == DROPPED
    assert torch.equal(colour[:, 0], colour[:, 1]) and torch.equal(grammar.drop(many, seeded()), dropped)
    with pytest.raises(MotionLabError, match="text dropout is 2"):
        grammar.drop(tokens, seeded(), text=2)


# --- config

@pytest.mark.parametrize("text, says", [("layer: 8", "Did you mean 'layers'"), ("d: 100", "does not divide by 16"), ("d: '192'", "whole number"), ("layers: true", "whole number"), ("patch: 5", "patches of 5")])
def test_config_refuses(text, says):
    with pytest.raises(MotionLabError, match=says):
        from_values(B.BackboneConfig, parse_yaml(text, "text"), "backbone config")


def test_default_size():
    with torch.device("meta"):
        size = sum(p.numel() for p in B.Backbone().parameters())
    assert 5e6 < size < 9e6


# --- the network

@pytest.mark.parametrize("f", range(1, 8))
def test_every_length(tiny, f):
    x, t, tokens = inputs(tiny, f=f)
    u = tiny(x, t, tokens)
    assert u.shape == x.shape and torch.isfinite(u).all()
    torch.testing.assert_close(u[:1], tiny(x[:1], t[:1], tokens[:1]), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("b", [1, 3])
def test_patch_two_and_gradients(b):
    model = B.Backbone(replace(TINY, patch=2))
    x, t, tokens = inputs(model, b)
    mask = B.condition_mask("first", b, 3)
    model(x, t, tokens, x, mask).square().mean().backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert not missing


def test_seed_and_global_random_state():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    a, b, c = B.Backbone(TINY, seed=1), B.Backbone(TINY, seed=1), B.Backbone(TINY, seed=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters()))
    assert not torch.equal(a.text.embedding.weight, c.text.embedding.weight)


def test_every_input_matters(tiny):
    x, t, tokens = inputs(tiny)
    u = tiny(x, t, tokens)
    mask = B.condition_mask("first", 2, 3)
    others = [tiny(x, t / 2, tokens), tiny(x, t, tokens.flip(0)), tiny(x, t, tiny.grammar.null(2)), tiny(x, t, tokens, x, mask),
              tiny(x, t, tokens, x, B.condition_mask("first_last", 2, 3)), tiny(x, t, tokens, 0 * x, mask)]
    assert all((u - other).abs().max() > 1e-5 for other in others)


def test_an_unused_modes_input_changes_nothing(tiny):
    x, t, tokens = inputs(tiny, f=4)
    cond = gaussian(x.shape, seeded(3))
    assert torch.equal(tiny(x, t, tokens), tiny(x, t, tokens, cond, B.condition_mask("text", 2, 4)))
    assert torch.equal(tiny(x, t, tokens), tiny(x, t, tokens, None, B.condition_mask("text", 2, 4)))
    for mode in B.MODES:
        mask = B.condition_mask(mode, 2, 4)
        other = torch.where(mask[:, :, None, None, None], cond, torch.tensor(float("nan")))
        assert torch.equal(tiny(x, t, tokens, cond, mask), tiny(x, t, tokens, other, mask)), mode


def test_modes_mix_in_one_batch(tiny):
    x, t, tokens = inputs(tiny, b=3)
    mask = torch.cat([B.condition_mask(mode, 1, 3) for mode in B.MODES])
    together = tiny(x, t, tokens, x, mask)
    for i in range(3):
        torch.testing.assert_close(together[i:i + 1], tiny(x[i:i + 1], t[i:i + 1], tokens[i:i + 1], x[i:i + 1], mask[i:i + 1]), atol=1e-5, rtol=1e-4)


def test_masks():
    assert B.condition_mask("first_last", 1, 4).tolist() == [[True, False, False, True]]
    assert not B.condition_mask("text", 2, 1).any()
    for mode, f in (("first", 1), ("first_last", 2)):
        with pytest.raises(MotionLabError, match="leaves nothing to generate"):
            B.condition_mask(mode, 1, f)
    with pytest.raises(MotionLabError, match="Did you mean 'first'"):
        B.condition_mask("frist", 1, 3)
    drawn = B.draw_condition_mask(4000, 5, seeded())
    assert abs(drawn[:, 0].float().mean() - 0.3) < 0.03 and abs(drawn[:, -1].float().mean() - 0.1) < 0.02
    assert not drawn[:, 1:-1].any() and not B.draw_condition_mask(50, 2, seeded())[:, 1].any()
    generator = seeded()
    before = generator.get_state()
    assert not B.draw_condition_mask(8, 5, generator, 0, 0).any() and not B.draw_condition_mask(8, 1, generator).any()
    assert torch.equal(generator.get_state(), before)


def test_place_frames():
    latent = torch.ones(2, 3, 4, 6)
    cond, mask = B.place_frames({0: latent, -1: 2 * latent}, 4)
    assert torch.equal(mask, B.condition_mask("first_last", 2, 4)) and cond.sum((0, 2, 3, 4)).tolist() == [144, 0, 0, 288]
    with pytest.raises(MotionLabError, match="no latent frame 4"):
        B.place_frames({4: latent}, 4)
    with pytest.raises(MotionLabError, match="shapes"):
        B.place_frames({0: latent, 1: latent[..., :2]}, 4)


# --- odd inputs

@pytest.mark.parametrize("change, says", [
    (lambda x, t, k: (x[:, :, :2], t, k), "2 channels; this backbone was made for a codec of 3"),
    (lambda x, t, k: (x.repeat(1, 3, 1, 1, 1), t, k), "9 latent frames; this backbone does 1 to 7"),
    (lambda x, t, k: (x[:, :0], t, k), "0 latent frames"),
    (lambda x, t, k: (x[..., :4], t, k), "4x4; this backbone's grid is 4x6"),
    (lambda x, t, k: (x[0], t, k), r"reads \(b, f, c, h, w\)"),
    (lambda x, t, k: (x, t[[0, 1, 1]], k), "2 clips, 2 texts and 3 times"),
    (lambda x, t, k: (x, t, k[:1]), "2 clips, 1 texts"),
    (lambda x, t, k: (x, t, k[:, :20]), "Grammar.encode"),
    (lambda x, t, k: (x, t, k, x[..., :4], B.condition_mask("first", 2, 3)), "differ in size"),
    (lambda x, t, k: (x, t, k, x), "without a mask"),
    (lambda x, t, k: (x, t, k, None, B.condition_mask("first", 2, 3)), "no latents"),
    (lambda x, t, k: (x, t, k, x, torch.ones(2, 3)), "bool mask"),
    (lambda x, t, k: (x, t, k, x, B.condition_mask("first", 2, 4)), "one entry per latent frame")])
def test_odd_inputs(tiny, change, says):
    with pytest.raises(MotionLabError, match=says):
        tiny(*change(*inputs(tiny)))


# --- files

def test_save_and_load(tiny, tmp_path):
    x, t, tokens = inputs(tiny)
    B.save_backbone(tiny, tmp_path / "a" / "b.safetensors", note={"steps": "0"})
    again = B.load_backbone(tmp_path / "a" / "b.safetensors", codec=Codec(CodecConfig(channels=3, width=16)))
    assert again.config == TINY and torch.equal(again(x, t, tokens), tiny(x, t, tokens))
    B.save_backbone(tiny, tmp_path / "half.safetensors", torch.bfloat16)
    small = B.load_backbone(tmp_path / "half.safetensors")
    assert small.text.position.dtype == torch.float32 and (tmp_path / "half.safetensors").stat().st_size < 0.6 * (tmp_path / "a" / "b.safetensors").stat().st_size
    assert B.load_backbone(tmp_path / "half.safetensors", dtype=torch.bfloat16)(x.bfloat16(), t, tokens).dtype == torch.bfloat16
    assert sorted(p.name for p in tmp_path.rglob("*.*")) == ["b.safetensors", "half.safetensors"]


def test_bad_files(tiny, tmp_path):
    from safetensors.torch import save_file
    good, bad = tmp_path / "good.safetensors", tmp_path / "bad.safetensors"
    B.save_backbone(tiny, good)
    state = {name: value.clone() for name, value in tiny.state_dict().items()}
    whole = {"kind": B.KIND, "config": json.dumps(asdict(TINY)), "vocabulary": " ".join(tiny.grammar.words)}

    def refused(says, path=bad, **options):
        with pytest.raises(MotionLabError, match=says):
            B.load_backbone(path, **options)

    refused("No backbone at", tmp_path / "none.safetensors")
    refused("Wrong codec.*3 channels, this codec has 16", good, codec=Codec(CodecConfig(channels=16, width=16)))
    other = Codec(CodecConfig(channels=3, width=16))
    other.fingerprint, tiny.codec_fingerprint = "11111111", "22222222"
    B.save_backbone(tiny, tmp_path / "paired.safetensors")
    refused("trained with codec 22222222, this one is 11111111", tmp_path / "paired.safetensors", codec=other)
    tiny.codec_fingerprint = ""
    for cut in (0, 5, 300, good.stat().st_size - 10):
        bad.write_bytes(good.read_bytes()[:cut])
        refused("truncated")
    save_file({"w": torch.ones(2)}, str(bad))
    refused("no motionlab model, not motionlab.backbone")
    save_file({**state, "extra": torch.ones(1)}, str(bad), metadata=whole)
    refused("do not fit its config.*extra")
    save_file(state, str(bad), metadata={**whole, "config": json.dumps(asdict(replace(TINY, d=48)))})
    refused("do not fit its config")
    save_file(state, str(bad), metadata={**whole, "vocabulary": "a b"})
    refused("another vocabulary")
    save_file({**state, "text.position": state["text.position"] * float("nan")}, str(bad), metadata=whole)
    refused("not finite in 'text.position'")


# ---------------------------------------------------------------------------------------------- growth
@pytest.mark.parametrize("layers", [3, 4, 5, 6])
def test_a_deeper_backbone_computes_the_same_until_it_is_trained(layers):
    small = B.Backbone(B.BackboneConfig(d=48, layers=3, heads=3, channels=4, height=6, width=6, max_frames=2, d_text=16, d_time=16))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in small.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=generator))
    grown = B.deeper(small, layers)
    x, t = torch.randn(2, 2, 4, 6, 6, generator=generator), torch.tensor([0.2, 0.7])
    tokens = small.grammar.encode(["a red dog walks to the left over the meadow"] * 2)
    assert len(grown.transformer.transformer_blocks) == layers == grown.config.layers
    assert torch.allclose(grown(x, t, tokens), small(x, t, tokens), atol=1e-5)
    out = grown(x, t, tokens).square().sum()
    out.backward()
    silent = [b for b in grown.transformer.transformer_blocks if not b.norm1.linear.weight.chunk(6)[2].any()]
    assert len(silent) == layers - 3 and all(b.norm1.linear.weight.grad.chunk(6)[2].any() for b in silent)     # they can learn


def test_a_backbone_cannot_shrink_or_explode():
    small = B.Backbone(B.BackboneConfig(d=48, layers=2, heads=3, channels=4, height=6, width=6, max_frames=2, d_text=16, d_time=16))
    for layers in (1, 5):
        with pytest.raises(MotionLabError, match="2 to 4"):
            B.deeper(small, layers)


# --- rotary positions

def test_rotary_positions_tell_places_apart_and_lengths_are_not_learned():
    model = B.Backbone(replace(TINY, rotary=True)).eval()
    x, t, tokens = inputs(model, b=1, f=5)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=seeded(1)))
        u, mirrored = model(x, t[:1], tokens), model(x.flip(-1), t[:1], tokens)
    assert u.shape == x.shape and not torch.allclose(u, mirrored.flip(-1), atol=1e-4)
    assert all(model(x[:, :f], t[:1], tokens).shape[1] == f for f in (1, 3))


def test_rotary_positions_need_heads_that_divide(tmp_path):
    with pytest.raises(MotionLabError, match="heads of a multiple of 16"):
        replace(TINY, rotary=True, heads=4)
    path = B.save_backbone(B.Backbone(replace(TINY, rotary=True)), tmp_path / "b.safetensors")
    assert B.load_backbone(path).config.rotary
