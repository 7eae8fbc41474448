"""The world's truth, proven: flow warps frames, tracks ride on flow and masks, sizes agree, seeds repeat bit by bit."""
import cv2
import numpy as np
import pytest

from motionlab.core.errors import MotionLabError
from motionlab.world import Actor, Camera, Occluder, Scene, caption, parse_caption, random_scene, render, vocabulary
from motionlab.world.geometry import affine, apply, inverse
from motionlab.world.motions import KINDS, MOTIONS
from motionlab.world.palette import COLOURS, PLACES, shade
from motionlab.world.puppets import SPECIES

SEEDS = (0, 1, 2, 3, 5, 8, 13, 21)
COMBINATIONS = [(s, m) for s in SPECIES for m in SPECIES[s].motions]


def warp_back(frame, flow):
    """Sample `frame` (t+1) at where each pixel of frame t goes: what frame t should look like."""
    h, w = flow.shape[1:]
    x, y = np.meshgrid(np.arange(w, dtype=np.float32), np.arange(h, dtype=np.float32))
    return cv2.remap(frame, x + flow[0], y + flow[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def inner(ids, k=2):
    """Pixels whose whole neighbourhood belongs to one layer: no antialiased edge in it."""
    same = np.ones(ids.shape, bool)
    for dy in range(-k, k + 1):
        for dx in range(-k, k + 1):
            same &= np.roll(ids, (dy, dx), (-2, -1)) == ids
    same[..., :k, :] = same[..., -k:, :] = same[..., :, :k] = same[..., :, -k:] = False
    return same


@pytest.mark.parametrize("species,motion", COMBINATIONS)
def test_warping_by_the_flow_reproduces_the_next_frame(species, motion):
    clip = render(random_scene(7, species_name=species, motion=motion), 96, 5)
    flat = inner(clip.ids)
    for t in range(4):
        error = np.abs(warp_back(clip.frames[t + 1], clip.flow[t]).astype(int) - clip.frames[t]).max(-1)
        seen = clip.flow_visible[t] & flat[t]
        landing_flat = warp_back(flat[t + 1].astype(np.float32), clip.flow[t]) > 0.99
        subject = clip.object_mask(None)[t] & seen & landing_flat
        assert error[subject].size == 0 or error[subject].max() <= 2          # parts are flat colours: exact but for rounding
        assert np.quantile(error[seen & landing_flat], 0.95) <= 6             # textures: bilinear sampling


def test_a_wrong_flow_does_not_reproduce_the_next_frame():
    clip = render(random_scene(4, species_name="dog", motion="run", camera=False), 96, 3)
    subject = clip.object_mask()[0]
    right = np.abs(warp_back(clip.frames[1], clip.flow[0]).astype(int) - clip.frames[0]).max(-1)[subject]
    wrong = np.abs(warp_back(clip.frames[1], -clip.flow[0]).astype(int) - clip.frames[0]).max(-1)[subject]
    assert wrong.mean() > 3 * right.mean()


@pytest.mark.parametrize("seed", SEEDS)
def test_tracks_agree_with_integrated_flow_and_with_masks(seed):
    clip = render(random_scene(seed), 64, 9)
    points = clip.foreground_points(40, seed)
    tracks, visible = clip.tracks(points)
    assert np.array_equal(tracks[0], points) and visible[0].all()
    owner = clip.owner(points, 0)
    for t in range(8):
        layers = [clip.layers[i] for i in owner]
        step = np.stack([apply(la.transform[t + 1] @ inverse(la.transform[t]), p) for la, p in zip(layers, tracks[t])])
        assert np.allclose(step, tracks[t + 1], atol=1e-8)
    at_query = np.round(points).astype(int)
    assert np.allclose(tracks[1] - tracks[0], clip.flow[0][:, at_query[:, 1], at_query[:, 0]].T, atol=1e-4)
    for t in range(9):
        near = np.round(tracks[t][visible[t]]).astype(int)
        grown = cv2.dilate(clip.object_mask(None)[t].astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        assert grown[np.clip(near[:, 1], 0, 63), np.clip(near[:, 0], 0, 63)].all()


def test_forward_and_backward_flow_cancel_where_visible():
    clip = render(random_scene(11), 64, 6)
    x, y = np.meshgrid(np.arange(64), np.arange(64))
    for t in range(5):
        seen = clip.flow_visible[t] & inner(clip.ids)[t]
        to_x, to_y = np.round(x + clip.flow[t, 0]).astype(int), np.round(y + clip.flow[t, 1]).astype(int)
        seen &= (to_x >= 0) & (to_x < 64) & (to_y >= 0) & (to_y < 64)
        same = clip.ids[t + 1][to_y.clip(0, 63), to_x.clip(0, 63)] == clip.ids[t]
        back = clip.flow_backward[t][:, to_y.clip(0, 63), to_x.clip(0, 63)]
        assert np.abs(clip.flow[t] + back)[:, seen & same].max() < 0.75       # half a pixel of rounding times local stretch


@pytest.mark.parametrize("seed", SEEDS[:4])
def test_two_sizes_give_the_same_truth_in_relative_units(seed):
    scene = random_scene(seed)
    small, large = render(scene, 64, 5), render(scene, 192, 5)
    points = small.foreground_points(20, 1)
    a, seen_a = small.tracks(points)
    b, seen_b = large.tracks((points + 0.5) * 3 - 0.5)
    assert np.allclose((a + 0.5) / 64, (b + 0.5) / 192, atol=1e-9) and (seen_a == seen_b).mean() > 0.97
    assert abs(small.object_mask().mean() - large.object_mask().mean()) < 0.01
    assert small.caption == large.caption
    for name, joint in small.pose().items():
        assert np.allclose((joint["joint"] + 0.5) / 64, (large.pose()[name]["joint"] + 0.5) / 192)


def test_frame_rate_changes_sampling_only():
    scene = random_scene(6)
    slow, fast = render(scene, 48, 5, fps=8), render(scene, 48, 9, fps=16)
    assert np.array_equal(slow.frames, fast.frames[::2])


@pytest.mark.parametrize("seed", SEEDS)
def test_bit_equal_per_seed_and_different_across_seeds(seed):
    first, again = render(random_scene(seed)), render(random_scene(seed))
    assert np.array_equal(first.frames, again.frames) and np.array_equal(first.flow, again.flow)
    assert not np.array_equal(first.frames, render(random_scene(seed + 100)).frames)


def test_wide_frames_render():
    clip = render(random_scene(2, aspect=1.5), (64, 96), 3)
    assert clip.frames.shape == (3, 64, 96, 3) and clip.flow.shape == (2, 2, 64, 96) and clip.video().shape == (3, 3, 64, 96)


# ------------------------------------------------------------------ constraints of the testbed
def test_subjects_fill_and_move_as_the_testbed_needs():
    area, cells = [], []
    for seed in range(80):
        clip = render(random_scene(seed), 48, 17)
        subject = clip.object_mask()
        speed = np.hypot(clip.flow[:, 0], clip.flow[:, 1])[subject[:-1]]
        area.append(subject.mean())
        cells.append(np.median(speed) * 4 / 4)                 # 4 frames per latent frame, 4 pixels per token cell
    assert 0.12 <= np.median(area) <= 0.30 and np.mean((np.array(area) > 0.08)) > 0.9
    assert 0.5 <= np.median(cells) <= 2 and np.mean((np.array(cells) > 0.5) & (np.array(cells) < 2)) > 0.85


def test_gaits_last_at_least_twelve_frames():
    assert all(m.period * 0.92 * 16 >= 12 for m in MOTIONS.values())


def test_limb_shades_are_separable_from_each_other_and_from_every_place():
    backgrounds = np.array([c for p in PLACES.values() for c in (*p.sky, p.hills, *p.ground)]) * 255
    for anatomy in SPECIES.values():
        slots = sorted({p.slot for p in anatomy.parts} - {"eye", "mark"})
        for colour in COLOURS:
            rgb = {s: shade(colour, s) * 255 for s in slots}
            for i, a in enumerate(slots):
                assert np.linalg.norm(backgrounds - rgb[a], axis=1).min() > 35, (anatomy.noun, colour, a)
                assert all(np.linalg.norm(rgb[a] - rgb[b]) > 35 for b in slots[:i]), (anatomy.noun, colour, a)


def test_every_kind_of_motion_is_there_and_moves():
    assert {MOTIONS[m].kind for _, m in COMBINATIONS} == set(KINDS)
    for species, motion in COMBINATIONS:
        clip = render(random_scene(3, species_name=species, motion=motion, camera=False), 48, 9)
        assert np.hypot(clip.flow[:, 0], clip.flow[:, 1])[clip.object_mask()[:-1]].mean() > 0.1, (species, motion)


def test_feet_touch_the_ground_and_hopping_keeps_area():
    clip = render(Scene(actors=(Actor(species="dog", motion="walk"),)), 96, 12)
    lowest = [np.nonzero(clip.object_mask()[t].any(1))[0].max() for t in range(12)]
    assert max(lowest) - min(lowest) <= 1
    jelly = render(Scene(actors=(Actor(species="jelly", motion="hop", colour="green", speed=0.0),)), 128, 16)
    area = jelly.object_mask().sum((1, 2))
    assert area.std() / area.mean() < 0.02


def test_occluders_hide_and_tracks_know_it():
    scene = Scene(actors=(Actor(species="ball", motion="pass_behind"),), occluders=(Occluder(0.5, 0.3),))
    clip = render(scene, 96, 17)
    _, visible = clip.tracks(clip.foreground_points(60))
    assert visible[0].all() and visible[8].mean() < 0.9 and visible.mean() < 1
    assert clip.depth_order[0] == "background/sky" and clip.depth_order[-1].startswith("occluder/")


def test_several_subjects_and_limbs_partition_the_mask():
    clip = render(random_scene(9, actors=2), 64, 4)
    assert clip.object_mask(0).any() and clip.object_mask(1).any() and not (clip.object_mask(0) & clip.object_mask(1)).any()
    limbs = np.stack(list(clip.limb_masks(0).values()))
    assert np.array_equal(limbs.any(0), clip.object_mask(0)) and limbs.sum(0).max() == 1


def test_camera_moves_the_background_with_parallax():
    still = render(Scene(), 64, 5)
    panned = render(Scene(camera=Camera(pan=(0.4, 0.0))), 64, 5)
    sky, ground = panned.ids[0] == 0, panned.ids[0] == 2
    assert np.abs(still.flow[0][:, still.ids[0] == 2]).max() < 1e-4
    assert panned.flow[0, 0][ground].mean() < panned.flow[0, 0][sky].mean() < 0
    zoomed = render(Scene(camera=Camera(zoom=0.5)), 64, 5)
    assert zoomed.flow[0, 0][:, -1].mean() > 0 > zoomed.flow[0, 0][:, 0].mean()


# ------------------------------------------------------------------ counterfactuals, captions, scene files
def test_counterfactuals_change_one_thing_only():
    scene = random_scene(12, species_name="person", motion="walk", camera=False)
    base = render(scene, 64, 6)
    dressed = render(scene.with_attributes(colour="green" if scene.actors[0].colour != "green" else "red", place="night" if scene.place != "night" else "snow"), 64, 6)
    subject = base.object_mask()
    assert np.array_equal(subject, dressed.object_mask()) and np.array_equal(base.flow[:, :, :, :][:, 0][subject[:-1]], dressed.flow[:, 0][subject[:-1]])
    assert not np.array_equal(base.frames, dressed.frames)
    danced = scene.with_motion("dance")
    assert danced.actors[0].colour == scene.actors[0].colour and danced.place == scene.place and danced.actors[0].motion == "dance"
    assert danced.actors[0].period == MOTIONS["dance"].period


@pytest.mark.parametrize("seed", range(40))
def test_captions_parse_back(seed):
    scene = random_scene(seed, actors=1 + seed % 2)
    clip = render(scene, 32, 1)
    assert parse_caption(caption(scene)) == clip.attributes
    assert set(clip.caption.replace(",", "").split()) <= set(vocabulary())


def test_grammar_is_small():
    assert 50 <= len(vocabulary()) <= 75


def test_a_path_says_what_the_caption_cannot():
    scene = Scene(actors=(Actor(species="fish", motion="swim"),))
    bent = Scene(actors=(Actor(species="fish", motion="swim", path=((0, 0.1), (0.05, -0.1), (0, 0.1))),))
    assert caption(scene) == caption(bent) and not np.array_equal(render(scene).frames, render(bent).frames)


def test_hidden_parts_are_not_drawn():
    whole = render(Scene(), 64, 2)
    lame = render(Scene(actors=(Actor(hide=("near_leg",)),)), 64, 2)
    assert "near_leg" in whole.limb_masks() and "near_leg" not in lame.limb_masks()
    assert lame.object_mask().sum() < whole.object_mask().sum()


def test_scene_files_round_trip(tmp_path):
    import yaml

    scene = random_scene(17, motion="pass_behind")
    (tmp_path / "scene.yaml").write_text(yaml.safe_dump(scene.to_dict()))
    assert Scene.from_yaml(tmp_path / "scene.yaml") == scene


@pytest.mark.parametrize("text,says", [
    ("actors: [{species: dgo}]", "Did you mean 'dog'"),
    ("actors: [{species: person, hide: [near_lag]}]", "part of a person 'near_lag'. Did you mean 'near_leg'"),
    ("actors: [{species: dog, motion: fly}]", "motion of a dog"),
    ("actors: [{colur: red}]", "Did you mean 'colour'"),
    ("place: medow", "Did you mean 'meadow'"),
    ("actors: [{size: big}]", "wrong type"),
    ("actors: []", "at least one actor"),
    ("- 1", "no scene"),
    ("{a: [", "not valid YAML"),
])
def test_bad_scene_files_say_what_is_wrong(tmp_path, text, says):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(MotionLabError, match=".*") as caught:
        Scene.from_yaml(path)
    assert says in str(caught.value) and "bad.yaml" in str(caught.value)


def test_bad_requests_say_what_is_wrong():
    with pytest.raises(MotionLabError, match="below the minimum of 32"):
        render(Scene(), 16)
    with pytest.raises(MotionLabError, match="at least one frame"):
        render(Scene(), 48, 0)
    clip = render(Scene(), 48, 3)
    with pytest.raises(MotionLabError, match="outside the 48x48 frame"):
        clip.tracks(np.array([[60.0, 3.0]]))
    with pytest.raises(MotionLabError, match="or are NaN"):
        clip.tracks(np.array([[np.nan, 3.0]]))
    with pytest.raises(MotionLabError, match="wanted \\(n, 2\\)"):
        clip.tracks(np.zeros((3, 3)))
    with pytest.raises(MotionLabError, match="Did you mean 'walks'"):
        parse_caption("a red dog walk to the left over the meadow")
    with pytest.raises(MotionLabError, match="No species and motion fit"):
        random_scene(0, species_name="dog", motion="fly")


def test_affine_inverse():
    t = affine(0.3, -2, 0.7, 1.4, -0.6)
    assert np.allclose(inverse(t) @ t, np.eye(3))


def test_flow_between_frames_in_any_order_is_where_their_points_are():
    clip = render(random_scene(5), frames=6)
    between = clip.flow_between([4, 1, 1, 5])
    points = np.array([[10.0, 20.0], [24.0, 30.0], [40.0, 8.0]])
    for k, (here, there) in enumerate([(4, 1), (1, 1), (1, 5)]):
        tracks, _ = clip.tracks(points, here)
        x, y = points.astype(int).T
        assert np.allclose(between[k][:, y, x].T, tracks[there] - points, atol=1e-3)
    assert np.array_equal(clip.flow_between(range(6)), clip.flow) and np.array_equal(clip.flow_between([3, 2])[0], clip.flow_backward[2])
