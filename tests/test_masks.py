"""The teacher of masks without SAM2: prompts, both directions, the world's truth, features of patches, rows of tracking."""
import numpy as np
import pytest
import torch

from motionlab.core.errors import MotionLabError
from motionlab.data.bank import BankConfig
from motionlab.data.tracked import KINDS, labels_of_pixels, open_tracked, tracked_scene
from motionlab.experiments.tracked import summary, tracked_rows
from motionlab.metrics.mask_tracking import after_hiding, copied, frame_iou, mean_iou, warped
from motionlab.papers.sam2videox.gram_flow import OUTSIDE, local_gram_flow
from motionlab.papers.sam2videox.objects import average_objects
from motionlab.teachers.detector import best_box, load_detector
from motionlab.teachers.masks import Tracked, both_ways, load_tracker, masks, surface_features
from motionlab.teachers.patches import load_patches, patches
from motionlab.teachers.prompts import Prompt, box_of, check_prompt, read_boxes, world_mask, world_prompt
from motionlab.world import Actor, Clip, Scene, random_scene, render

FRAMES = np.zeros((3, 48, 64, 3), np.uint8)


@pytest.fixture(scope="module")
def clip():
    return render(Scene(actors=(Actor(motion="walk"),)), 48, 9)


# ------------------------------------------------------------------ prompts
@pytest.mark.parametrize("prompt, says", [
    (Prompt(), "neither box"), (Prompt(box=(0, 0, 4, 4), points=[[1, 1]]), "box and points"),
    (Prompt(box=(0, 0, 64, 20)), "outside the 64x48"), (Prompt(box=(5, 5, 5, 9)), "without area"), (Prompt(box=(1, 2, 3)), "for a box"),
    (Prompt(box=(0, 0, np.nan, 4)), "nan"), (Prompt(points=[[70, 3]]), "outside"), (Prompt(points=[[1, 1]], labels=[0]), "labels"),
    (Prompt(points=[[1, 1]], labels=[1, 1]), "labels"), (Prompt(mask=np.zeros((48, 64))), "empty mask"),
    (Prompt(mask=np.ones((64, 48))), "mask of shape"), (Prompt(box=(0, 0, 4, 4), frame=1), "frame 1 of 3")])
def test_a_prompt_that_shows_nothing_is_told(prompt, says):
    with pytest.raises(MotionLabError, match=says):
        check_prompt(prompt, 3, 48, 64)


def test_prompts_of_the_truth_and_of_a_table(clip, tmp_path):
    box = world_prompt(clip).box
    assert box == box_of(clip.object_mask(0)[0]) and world_prompt(clip, frame=-1, kind="mask").mask.sum() == clip.object_mask(0)[-1].sum()
    x, y = world_prompt(clip, "0/near_leg", kind="points").points[0].astype(int)
    assert world_mask(clip, "0/near_leg")[0, y, x]
    assert box_of(np.zeros((4, 4))) is None
    for wrong in ("1", "0/wing", "dog"):
        with pytest.raises(MotionLabError, match="no (actor|limb)"):
            world_mask(clip, wrong)
    table = tmp_path / "boxes.csv"
    table.write_text("file,x0,y0,x1,y1,frame\na.mp4,1,2,30,40,\na.mp4,1,2,31,41,last\n")
    assert [(one.box[2], one.frame) for one in read_boxes(table)["a.mp4"]] == [(30, 0), (31, -1)]
    table.write_text("file,x0,y0,x1\na.mp4,1,2,30\n")
    with pytest.raises(MotionLabError, match="line 2"):
        read_boxes(table)
    with pytest.raises(MotionLabError, match="no table"):
        read_boxes(tmp_path / "none.csv")


def test_the_best_box_is_large_sure_and_no_background():
    boxes = [(0, 0, 99, 99), (10, 10, 60, 60), (10, 10, 30, 30), (0, 0, 5, 5)]
    assert best_box(boxes, [0.9, 0.4, 0.6, 0.99], (100, 100)) == (10, 10, 60, 60)
    assert best_box([], [], (100, 100)) is None and best_box([(0, 0, 5, 5)], [0.9], (100, 100)) is None
    with pytest.raises(MotionLabError, match="no words"):
        load_detector(None, [" "])
    with pytest.raises(MotionLabError, match="no detector"):
        load_detector("nowhere", ["person"])


def test_a_detector_from_a_folder_gives_a_prompt(tmp_path, monkeypatch):
    """GroundingDINO at toy size with random weights: the way through transformers, not what it finds."""
    from transformers import (BertTokenizer, GroundingDinoConfig, GroundingDinoForObjectDetection, GroundingDinoImageProcessor,
                              GroundingDinoProcessor)

    from motionlab.teachers import detector

    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "person", "animal"]))
    text = dict(model_type="bert", vocab_size=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
                max_position_embeddings=64)
    spine = dict(model_type="swin", image_size=64, embed_dim=8, depths=[1] * 4, num_heads=[1] * 4, window_size=4, out_indices=[2, 3, 4])
    torch.manual_seed(0)
    GroundingDinoForObjectDetection(GroundingDinoConfig(
        text_config=text, backbone_config=spine, d_model=32, encoder_layers=1, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, num_queries=8, max_text_len=32)).save_pretrained(tmp_path)
    pictures = GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})
    GroundingDinoProcessor(pictures, BertTokenizer(str(tmp_path / "vocab.txt"))).save_pretrained(tmp_path)
    detect = load_detector(tmp_path, ["person", "animal"])
    monkeypatch.setattr(detector, "BOX", 1.0)
    assert detect(FRAMES[0]) is None
    monkeypatch.setattr(detector, "BOX", 0.0), monkeypatch.setattr(detector, "TEXT", 0.0), monkeypatch.setattr(detector, "LEAST", 0.0)
    found = detect(FRAMES[0])
    assert check_prompt(found, 3, 48, 64).kind == "box"
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(MotionLabError, match="cannot be read as a detector"):
        load_detector(tmp_path, ["person"])


# ------------------------------------------------------------------ the world's truth
def test_exact_masks_and_features(clip):
    seen = masks(clip, world_prompt(clip), "exact")
    assert np.array_equal(seen.masks, clip.object_mask(0)) and (seen.scores > 0).all() and seen.features.shape == (9, 128, 12, 12)
    leg = masks(clip, Prompt(mask=world_mask(clip, "0/near_leg")[0], object="0/near_leg"), "exact")
    assert np.array_equal(leg.masks, world_mask(clip, "0/near_leg"))
    with pytest.raises(MotionLabError, match="covers no actor"):
        masks(clip, Prompt(box=(0, 0, 2, 2)), "exact")
    with pytest.raises(MotionLabError, match="truth"):
        masks(FRAMES, Prompt(box=(0, 0, 2, 2)), "exact")
    with pytest.raises(MotionLabError, match="do not divide"):
        surface_features(clip, 7)
    with pytest.raises(MotionLabError, match="at least two frames"):
        masks(render(clip.scene, 48, 1), world_prompt(clip), "exact")


def test_a_static_clip_stays_where_it_is():
    """T6 of the card, with the teacher that needs no weights."""
    still = render(Scene(actors=(Actor(motion="walk", speed=0.0, period=1e5),)), 48, 3)
    features = torch.from_numpy(masks(still, world_prompt(still), "exact").features)[None].movedim(2, -1)
    assert (local_gram_flow(features)[0].argmax(-1) == 24).float().mean() > 0.95


def test_exact_features_follow_what_moves():
    clip = render(Scene(actors=(Actor("box", "blue", "slide", size=1.4, x=0.9, y=-0.2, speed=0.45),)), 96, 5)
    order = [0, 4]
    features = torch.from_numpy(surface_features(clip)[order])[None].movedim(2, -1)
    found = local_gram_flow(features)[0, 0].argmax(-1).numpy()
    dx = clip.flow_between(order)[0, 0].reshape(12, 8, 12, 8).mean((1, 3)) / 8
    inside = clip.object_mask(0)[0].reshape(12, 8, 12, 8).all((1, 3))
    assert inside.sum() >= 9 and dx[inside].min() > 0.9
    assert (np.abs(found[inside] % 7 - 3 - dx[inside]) <= 0.6).mean() > 0.8


# ------------------------------------------------------------------ both directions
class Fake:
    """A tracker that sees `areas[i]` of the frame, in every clip, at score 1 where that is above 0."""

    def __init__(self, forwards, backwards=None):
        self.areas, self.prompts = {0: forwards, -1: backwards or forwards}, []

    def track(self, videos, prompts):
        self.prompts += prompts
        out = []
        for video, prompt in zip(videos, prompts):
            areas = self.areas[prompt.frame]
            seen = np.zeros((len(areas), 48, 64), bool)
            for t, area in enumerate(areas):
                seen[t].flat[:int(area * 48 * 64)] = True
            features = np.full((len(areas), 4, 3, 3), prompt.frame, np.float32)
            out.append(Tracked(seen, np.where(seen.any((1, 2)), 1.0, -1.0).astype(np.float32), features))
        return out


BOX = Prompt(box=(2, 2, 9, 9))


def test_the_way_back_starts_from_where_the_way_there_ended():
    tracker = Fake([0.2, 0.2, 0.1])
    both, = both_ways([FRAMES], [BOX], tracker)
    assert tracker.prompts[1].frame == -1 and tracker.prompts[1].box[3] == 4 and both.alpha.tolist() == [0.5, 0.5] and both.lost == ""
    assert both.features().shape == (2, 3, 4, 3, 3) and both.features()[1].max() == -1
    assert both_ways([FRAMES], [BOX], tracker, skip_prompt_pairs=True)[0].alpha.tolist() == [0, 1]


@pytest.mark.parametrize("end", [0.0, 0.004])
def test_an_object_lost_at_the_end_is_looked_for_again_or_left(end):
    lost, = both_ways([FRAMES], [BOX], Fake([0.2, 0.2, end]))
    assert lost.backward is None and lost.lost == "backward" and lost.alpha.tolist() == [1, 1]
    assert np.array_equal(lost.features()[0], lost.features()[1])
    found, = both_ways([FRAMES], [BOX], Fake([0.2, 0.2, end]), detect=lambda picture: Prompt(box=(1, 1, 5, 5)) if picture.shape == (48, 64, 3) else None)
    assert found.backward is not None and found.lost == ""


def test_what_is_seen_of_clips_has_both_options(monkeypatch):
    """`data.seen.look`: the pairs beside the prompts, and the detector that looks again in the last frame, are those of `both_ways`."""
    from motionlab.data import seen

    monkeypatch.setattr(seen, "_tracker", lambda *a: Fake([0.2, 0.2, 0.0]))
    asked, pictures, subjects = [], FRAMES[None], np.zeros((1, 3, 48, 64), bool)
    subjects[0, 0, 2:9, 2:9] = True
    lost = seen.look("sam2", pictures, subjects)
    assert lost.alpha.tolist() == [[1, 1]]

    def load(checkpoint, words, device, frame):
        asked.append((checkpoint, tuple(words), frame))
        return lambda picture: Prompt(box=(1, 1, 5, 5), frame=frame)

    seen._detect.cache_clear(), monkeypatch.setattr(seen, "load_detector", load)
    found = [seen.look("sam2", pictures, subjects, "", skip, "dino") for skip in (False, True)]
    seen._detect.cache_clear()
    assert asked == [("dino", ("person", "animal"), -1)] and [one.alpha.tolist() for one in found] == [[[0.5, 0.5]], [[0, 1]]]
    assert found[0].backward.max() == -1


def test_an_object_lost_everywhere_is_told():
    with pytest.raises(MotionLabError, match="lost in every frame"):
        masks(FRAMES, BOX, Fake([0.2, 0.0, 0.0]))
    both, = both_ways([FRAMES], [BOX], Fake([0.2, 0.0, 0.0]))
    assert both.lost == "everywhere"
    with pytest.raises(MotionLabError, match="neither in its first nor"):
        both_ways([FRAMES], [None], Fake([0.2] * 3))
    later, = both_ways([FRAMES], [None], Fake([0.2] * 3), last=[BOX])
    assert later.forward is None and later.lost == "forward" and later.alpha.tolist() == [0, 0]


def test_a_reversed_clip_swaps_what_the_two_directions_see(clip):
    ends = [world_prompt(clip), world_prompt(clip, frame=-1)]
    there, = both_ways([clip], ends[:1], load_tracker("exact"), last=ends[1:])
    turned = Clip(clip.scene, clip.frames[::-1], clip.ids[::-1], tuple(_turned(layer) for layer in clip.layers), clip.fps)
    back, = both_ways([turned], [Prompt(box=ends[1].box)], load_tracker("exact"), last=[Prompt(box=ends[0].box, frame=-1)])
    assert np.allclose(back.forward.features[::-1], there.backward.features, atol=1e-5)
    assert np.array_equal(back.backward.masks[::-1], there.forward.masks)


def _turned(layer):
    import dataclasses

    return dataclasses.replace(layer, transform=layer.transform[::-1])


def test_several_objects_are_averaged_as_maps():
    one, two = (local_gram_flow(torch.randn(1, 3, 6, 6, 8, generator=torch.Generator().manual_seed(k)), 1) for k in (0, 1))
    mean = average_objects([one, two])
    assert torch.allclose(mean[one > OUTSIDE], (one + two)[one > OUTSIDE] / 2) and torch.equal(mean <= OUTSIDE, one <= OUTSIDE)
    assert torch.equal(average_objects([one, two], [False, True]), two)
    for wrong in (lambda: average_objects([]), lambda: average_objects([one], [False]), lambda: average_objects([one, two[:, :1]])):
        with pytest.raises(MotionLabError, match="objects count"):
            wrong()


# ------------------------------------------------------------------ patches
def test_patches_of_pixels_and_networks(clip, tmp_path):
    from encoders import dinov2_folder

    from motionlab.models.image_encoder import ImageEncoder, ImageEncoderConfig

    rgb = patches(clip.frames[:2], "rgb")
    assert rgb.shape == (2, 48, 12, 12) and np.allclose(rgb.reshape(2, 3, 16, 12, 12).mean((0, 2, 3, 4)), 0, atol=1e-6)
    assert np.allclose(rgb[1, :16, 2, 3] - rgb[0, :16, 2, 3], (clip.frames[1, 8:12, 12:16, 0].astype(float) - clip.frames[0, 8:12, 12:16, 0]).ravel()
                       / 127.5, atol=1e-5)
    encoder = ImageEncoder(ImageEncoderConfig(d=16, layers=1, heads=2)).eval()
    seen = load_patches("image_encoder", encoder=encoder)(clip.frames[:2])
    assert seen.shape == (2, 16, 12, 12)
    assert np.allclose(seen[1, :, 0, 5], encoder.features(torch.from_numpy(clip.video()[1:2]))[0, 5].numpy(), atol=1e-5)
    dinov2_folder(tmp_path / "dinov2")
    assert load_patches("dinov2", checkpoint=tmp_path / "dinov2", size=42)(clip.frames[:2]).shape == (2, 16, 3, 3)
    for options, says in (({"teacher": "dinov2"}, "needs a folder with DINOv2"), ({"teacher": "sam2"}, "needs a SAM2"), ({"teacher": "image_encoder"}, "encoder"),
                          ({"grid": 7}, "do not divide"), ({"teacher": "dinov2", "checkpoint": tmp_path / "dinov2", "size": 40}, "do not divide")):
        with pytest.raises(MotionLabError, match=says):
            patches(clip.frames, **options)


# ------------------------------------------------------------------ scenes, labels and rows
def test_tracked_scenes_are_hard_and_their_labels_exact(tmp_path, capsys):
    pairs = [tracked_scene(seed, "pair") for seed in range(6)]
    assert all(a.species == b.species and a.colour == b.colour for a, b in (scene.actors for scene in pairs))
    assert all(tracked_scene(seed, "pillar").occluders and tracked_scene(seed, "pillar").actors[0].speed > 0.2 for seed in range(6))
    assert tracked_scene(5) == tracked_scene(5) and tracked_scene(7, "plain") == random_scene(7)
    with pytest.raises(MotionLabError, match="kind of tracked scene"):
        tracked_scene(0, "pillow")
    clip = render(pairs[0], 48, 3)
    labels = labels_of_pixels(clip)
    assert np.array_equal((labels > 0) & ((labels - 1) // 16 == 1), clip.object_mask(1))
    for k, mask in enumerate(clip.limb_masks(1).values()):
        assert np.array_equal(labels == 17 + k, mask)
    config = BankConfig("teacher", 10000, 2, 5, 48)
    bank = open_tracked(config, tmp_path, 1)
    said = capsys.readouterr().out
    assert bank.frames.shape == (2, 5, 48, 48, 3) and "2/2" in said
    assert np.array_equal(open_tracked(config, tmp_path, 1).labels, bank.labels) and not capsys.readouterr().out


def test_iou_and_what_is_there_without_a_tracker():
    a = np.zeros((3, 8, 8), bool)
    a[:, 2:4, 2:4] = True
    b = a.copy()
    b[1], b[2] = np.roll(a[1], 1, 1), False
    assert frame_iou(a, b).tolist() == pytest.approx([1, 1 / 3, 0]) and mean_iou(a, b) == pytest.approx(1 / 6)
    assert frame_iou(b[2:], b[2:])[0] == 1 and np.array_equal(copied(a[0], 3), a)
    back = np.zeros((2, 2, 8, 8))
    back[:, 0] = -1                                                    # all moves right by a pixel: backwards it is -1
    assert np.array_equal(warped(a[0], back)[2], np.roll(a[0], 2, 1))
    hidden = copied(a[0], 5)
    hidden[2] = False
    assert after_hiding(hidden, copied(a[0], 5)).tolist() == [False] * 3 + [True] * 2 and not after_hiding(a, a).any()
    with pytest.raises(MotionLabError, match="Masks have shape"):
        frame_iou(a, b[:2])


def test_rows_of_a_tracker_that_is_right_and_of_one_that_takes_the_other():
    class Other:
        def track(self, clips, prompts):
            return [Tracked(clip.object_mask(1), np.ones(9, np.float32), np.zeros((9, 1, 1, 1), np.float32)) for clip in clips]

    right = [row for kind in KINDS for row in tracked_rows([3, 4], load_tracker("exact"), kind, 48, 9)]
    assert summary(right)["iou"] == 1 and summary(right)["right"] == 1 and 0 < summary(right)["above_warped"] < summary(right)["above_copied"]
    pair = list(tracked_rows([3, 4], Other(), "pair", 48, 9))
    assert {row["arm"] for row in pair} == {"sam2", "copied", "warped", "copied_true", "warped_true"}
    assert all(row["right"] == 0 for row in pair if row["arm"] == "sam2")
