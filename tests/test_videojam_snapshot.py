"""VideoJAM on pretrained snapshots: both halves at the border of conventions."""
import pytest
import torch

from motionlab.diffusion import interpolate, velocity, velocity_from_v
from motionlab.methods import open_method
from motionlab.models import size as sizes
from motionlab.models.open import open_pipe
from motionlab.papers.videojam import Guidance, inner_guidance, joint_velocity, widen
from snapshots import CHANNELS, cogvideox_snapshot, wan_snapshot

KINDS = ("wan", "cogvideox")
CLIP, T = (9, 32, 32), torch.tensor([0.2, 0.7])


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("snapshots")
    return {"wan": wan_snapshot(root / "wan"), "cogvideox": cogvideox_snapshot(root / "cogvideox")}


def load(folder, dtype=torch.float32):
    return open_pipe(str(folder), *CLIP, dtype=dtype)


def latents(seed, b=2):
    return torch.randn(b, 3, CHANNELS, 4, 4, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_a_widened_snapshot_starts_as_the_base_to_the_bit_whatever_the_motion_is(folders, kind, dtype):
    pipe, x = load(folders[kind], dtype), latents(1)
    text = pipe.text(["a cat.", "a dog."])
    with torch.no_grad():
        base = pipe(x, T, text)
        widen(pipe.denoiser, CHANNELS)
        for d in (torch.zeros_like(x), latents(2), 1e4 * latents(3), x):
            assert torch.equal(joint_velocity(pipe, x, d, T, text)[0], base)


@pytest.mark.parametrize("kind", KINDS)
def test_copied_columns_give_both_halves_the_same_conversion(folders, kind):
    """The network says one v for both: CogVideoX's velocities differ by s (alpha - sigma) (d - x), Wan's not."""
    pipe, x, d = load(folders[kind]), latents(1), latents(2)
    widen(pipe.denoiser, CHANNELS, "copy")
    text = pipe.text(["a cat.", "a dog."])
    with torch.no_grad():
        assert torch.equal(*joint_velocity(pipe, x, x, T, text))
        u_x, u_d = joint_velocity(pipe, x, d, T, text)
    t = T.view(-1, 1, 1, 1, 1)
    direct = 0 if kind == "wan" else (2 * t - 1) / (t**2 + (1 - t) ** 2)
    torch.testing.assert_close(u_d - u_x, direct * (d - x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_perfect_network_gives_both_velocities(folders, kind, monkeypatch):
    """It sees both states of its own convention at one noise level and says both targets: ours must come out."""
    pipe = load(folders[kind])
    widen(pipe.denoiser, CHANNELS)
    x0, x1, d0, d1 = map(latents, range(4))

    def perfect(z, timestep, text, known):
        noisy = [interpolate(a0, a1, T) for a0, a1 in ((x0, x1), (d0, d1))]
        torch.testing.assert_close(z, torch.cat([pipe.border.state(x, T) for x in noisy], 2))
        return torch.cat([pipe.border.native(velocity(a0, a1), x, T) for x, (a0, a1) in zip(noisy, ((x0, x1), (d0, d1)))], 2)

    monkeypatch.setattr(pipe, "native", perfect)
    u_x, u_d = joint_velocity(pipe, interpolate(x0, x1, T), interpolate(d0, d1, T), T, pipe.text(["", ""]))
    torch.testing.assert_close(u_x, velocity(x0, x1))
    torch.testing.assert_close(u_d, velocity(d0, d1))


def test_guided_appearance_is_the_same_whether_v_or_velocity_is_combined(folders):
    """For x, which is one state in all passes, guidance commutes with CogVideoX's conversion; w1 = 5 and w2 = 3."""
    pipe, x, d, t = load(folders["cogvideox"]), latents(1, 1), latents(2, 1), torch.tensor([0.1])
    widen(pipe.denoiser, CHANNELS, "copy")
    seen, native = [], pipe.native
    with torch.no_grad():
        weight = pipe.denoiser.patch_embed.proj.weight  # drawn, so that motion matters
        weight.add_(0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(3)))
        pipe.native = lambda *a: seen.append(native(*a)) or seen[-1]
        u = inner_guidance(pipe, pipe.text(["a cat."]), Guidance(5.0, 3.0))(torch.cat([x, d], 2), t)
    full, no_text, no_motion = seen[0][:, :, :CHANNELS].chunk(3)
    assert not torch.allclose(full, no_motion, atol=1e-3)
    expected = velocity_from_v(9 * full - 5 * no_text - 3 * no_motion, x, t)
    torch.testing.assert_close(u[:, :, :CHANNELS], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_size_of_a_widened_snapshot_is_the_real_one(folders, kind):
    pipe = load(folders[kind])
    before = sum(p.numel() for p in pipe.denoiser.parameters())
    open_method("videojam").attach(pipe)
    size, plain = sizes.measure(str(folders[kind]), *CLIP, attach=widen), sizes.measure(str(folders[kind]), *CLIP)
    assert size.parameters == sum(p.numel() for p in pipe.denoiser.parameters()) == before + size.added and size.added > 0
    assert plain.added == 0 and size.tokens == plain.tokens and plain.flops < size.flops < 1.2 * plain.flops
