"""SAM2 as a tracker (Ravi et al., arXiv 2408.00714): the package's `SAM2Base.track_step` over many clips at once, and transformers' class.

Both read memory features by a hook on the mask decoder, whose input they are: once a frame, the prompted one included. Under a mask
prompt the decoder is given bare image features there; `no_mem_embed`, which a box or points add, is then added here.
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from motionlab.core.errors import MotionLabError
from motionlab.teachers.masks import Tracked
from motionlab.teachers.prompts import Prompt, check_prompt
from motionlab.teachers.sam2_build import Sam2Config, build_sam2, build_transformers
from motionlab.teachers.sam2_files import read_checkpoint, to_sam2, to_transformers
from motionlab.teachers.weights import fill, to_device
from motionlab.video import check_frames

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)             # of the pictures that SAM2 was trained on
TOGETHER = 16                                                        # clips that are tracked at once


class _Sam2:
    """What both backends share: how clips and prompts are read."""

    def __init__(self, model, config: Sam2Config, device: str, batch: int = TOGETHER):
        if batch < 1:
            raise MotionLabError(f"batch is {batch}.", fix="Track 1 or more clips at once.")
        self.model, self.config, self.device, self.batch = to_device(model, device).eval(), config, device, batch

    @torch.no_grad()
    def track(self, videos: Sequence, prompts: Sequence[Prompt]) -> list[Tracked]:
        """As `masks.Tracker.track`; masks are thresholded at the clip's own size."""
        clips = [check_frames(getattr(video, "frames", video), at_least=2, who="SAM2") for video in videos]
        if len({clip.shape for clip in clips}) > 1:
            raise MotionLabError(f"SAM2 got clips of the shapes {sorted({clip.shape for clip in clips})} at once.",
                                 fix="Track clips of one shape together.")
        asked = [check_prompt(one, *clip.shape[:3], "SAM2") for one, clip in zip(prompts, clips, strict=True)]
        out: list[Tracked] = [None] * len(clips)
        for rows in _alike(asked, self.batch):
            backwards = asked[rows[0]].frame == -1
            shown = np.stack([clips[i][::-1] if backwards else clips[i] for i in rows])
            for i, one in zip(rows, self._forwards(shown, [asked[i] for i in rows])):
                out[i] = Tracked(*(a[::-1].copy() for a in (one.masks, one.scores, one.features))) if backwards else one
        return out

    def _inputs(self, shown, prompts):
        """Pictures (b, f, 3, s, s) as the network takes them, points or None, masks or None."""
        size = self.config.image_size
        pictures = self._pictures(shown)
        if prompts[0].kind == "mask":
            given = torch.from_numpy(np.stack([one.mask for one in prompts]))[:, None].float().to(self.device)
            return pictures, None, (_resized(given, size) >= 0.5).float()
        scale = torch.tensor([size / shown.shape[3], size / shown.shape[2]])
        given = [one.box if one.kind == "box" else (one.points, one.labels) for one in prompts]
        return pictures, point_inputs(given, scale, self.device), None

    def _pictures(self, frames):
        return as_inputs(torch.from_numpy(np.ascontiguousarray(frames)).to(self.device), self.config.image_size)

    def _tracked(self, logits, scores, features, size) -> list[Tracked]:
        """logits (b, f, 1, h, w), scores (b, f), features (b, f, c, g, g) -> one `Tracked` a clip."""
        full = F.interpolate(logits.flatten(0, 1).float(), size=size, mode="bilinear", align_corners=False).unflatten(0, logits.shape[:2])
        parts = ((full[:, :, 0] > 0), scores.float(), features.float())
        return [Tracked(*(part[i].cpu().numpy() for part in parts)) for i in range(len(logits))]


def as_inputs(frames: torch.Tensor, size: int) -> torch.Tensor:
    """Frames uint8 (..., h, w, 3) -> (..., 3, size, size) as SAM2 takes them; the aspect is not kept."""
    pictures = frames.movedim(-1, -3).float() / 255
    pictures = _resized(pictures.flatten(0, -4), size).unflatten(0, pictures.shape[:-3])
    return (pictures - pictures.new_tensor(MEAN)[:, None, None]) / pictures.new_tensor(STD)[:, None, None]


def _resized(pictures, size):
    if pictures.shape[-2:] == (size, size):
        return pictures
    return F.interpolate(pictures, size=(size, size), mode="bilinear", align_corners=False, antialias=True)


def point_inputs(given: Sequence, scale: torch.Tensor, device="cpu") -> dict[str, torch.Tensor]:
    """SAM2's points of boxes (x0, y0, x1, y1), which are corners with labels 2 and 3, or of (points, labels), all of one number.

    scale: (2,), pixels of the input per pixel of the clip.
    """
    pairs = [(np.reshape(one, (2, 2)), np.array([2, 3])) if len(one) == 4 else one for one in given]
    coords = torch.from_numpy(np.stack([np.asarray(points, np.float32) for points, _ in pairs]))
    labels = torch.from_numpy(np.stack([labels for _, labels in pairs])).to(torch.int32)
    return {"point_coords": (coords * scale).to(device), "point_labels": labels.to(device)}


def _alike(prompts, most) -> Iterator[list[int]]:
    """Rows that can be tracked together: prompts of one kind, number of points and end; at most `most`."""
    groups: dict[tuple, list[int]] = {}
    for i, one in enumerate(prompts):
        groups.setdefault((one.frame, one.kind, 0 if one.points is None else len(one.points)), []).append(i)
    for rows in groups.values():
        yield from (rows[i:i + most] for i in range(0, len(rows), most))


@contextmanager
def decoder_calls(decoder: torch.nn.Module) -> Iterator[list]:
    """Yields a list of (image_embeddings, outputs) that grows by one with each call of a mask decoder."""
    calls: list = []
    handle = decoder.register_forward_hook(lambda _, __, given, out: calls.append((given["image_embeddings"], out)), with_kwargs=True)
    try:
        yield calls
    finally:
        handle.remove()


# ---------------------------------------------------------------------------------------------- the package
def track_steps(model, pictures: torch.Tensor, points: dict | None = None, masks: torch.Tensor | None = None,
                memory_dtype: torch.dtype | None = None, ahead: int = 1, objects: int = 1) -> Iterator[dict[str, torch.Tensor]]:
    """`SAM2Base.track_step` over the frames of b clips, `objects` of each (rows k b to k b + b are the k-th), prompted in the first frame.

    In eval mode it does what `SAM2VideoPredictor` does to each clip alone: the prompted frame's memory is encoded from its mask at
    stride 4, and memories are kept in bf16 (`memory_dtype`; None: as they come). In training mode gradients flow through memories.

    Args:
        pictures: (b, f, 3, s, s), of `as_inputs`. points: of `point_inputs`. masks: (b objects, 1, s, s), 0 or 1. ahead: frames of a
            clip that are encoded together.

    Yields:
        Per frame: logits (b, 1, s/4, s/4), multimasks and ious of all its guesses (b, m, s/4, s/4) and (b, m), before they are hidden
        where the object is out of view; score (b,); features (b, c, g, g).
    """
    memory: dict = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
    with decoder_calls(model.sam_mask_decoder) as calls:
        for t in range(pictures.shape[1]):
            first = t == 0
            if t % ahead == 0:
                encoded = model.forward_image(pictures[:, t:t + ahead].transpose(0, 1).flatten(0, 1))
            _, seen, where, sizes = model._prepare_backbone_features(_frame(encoded, t % ahead, len(pictures), objects))
            out = model.track_step(frame_idx=t, is_init_cond_frame=first, current_vision_feats=seen, current_vision_pos_embeds=where,
                                   feat_sizes=sizes, point_inputs=points if first else None, mask_inputs=masks if first else None,
                                   output_dict=memory, num_frames=pictures.shape[1], run_mem_encoder=not first)
            features, (guesses, ious, _, score) = calls.pop()
            calls.clear()
            if first and pictures.shape[1] > 1:
                out["maskmem_features"], out["maskmem_pos_enc"] = _prompted_memory(model, out, score, seen, sizes)
            if memory_dtype is not None and pictures.shape[1] > 1:
                out["maskmem_features"] = out["maskmem_features"].to(memory_dtype)
            memory["cond_frame_outputs" if first else "non_cond_frame_outputs"][t] = out
            if first and masks is not None:
                features, score = features + model.no_mem_embed.reshape(1, -1, 1, 1), out.get("object_score_logits", score)
            yield {"logits": out["pred_masks"], "multimasks": guesses, "ious": ious, "score": score[:, 0], "features": features}


def _frame(encoded, k, count, objects):
    """The k-th `count` pictures of what an image encoder made of several, once for each object."""
    rows = slice(k * count, (k + 1) * count)
    return {name: [part[rows].repeat(objects, 1, 1, 1) for part in encoded[name]] for name in ("backbone_fpn", "vision_pos_enc")}


def _prompted_memory(model, out, score, seen, sizes):
    """As `SAM2VideoPredictor.propagate_in_video_preflight`; in training mode nothing is made hard."""
    high = F.interpolate(out["pred_masks"].float(), size=(model.image_size,) * 2, mode="bilinear", align_corners=False)
    return model._encode_new_memory(seen, sizes, high, out.get("object_score_logits", score), is_mask_from_pts=True)


class Sam2Tracker(_Sam2):
    """The package's network over a batch of clips; `model` is its `SAM2VideoPredictor`, for whoever wants that."""

    def _forwards(self, shown, prompts):
        pictures, points, masks = self._inputs(shown, prompts)
        steps = list(track_steps(self.model, pictures, points, masks, torch.bfloat16))
        logits, scores, features = (torch.stack([step[name] for step in steps], 1) for name in ("logits", "score", "features"))
        return self._tracked(logits, scores, features, shown.shape[2:4])

    @torch.no_grad()
    def image_features(self, frames: np.ndarray) -> np.ndarray:
        """What it sees of frames uint8 (f, h, w, 3) without any memory: (f, c, g, g) float32, stride 16."""
        pictures = self._pictures(check_frames(frames, who="SAM2"))
        return torch.cat([self.model.image_encoder(part)["vision_features"] for part in pictures.split(self.batch)]).float().cpu().numpy()


def load_sam2(checkpoint: str | Path | None = None, device: str = "cpu", config: Sam2Config | None = None, seed: int = 0,
              batch: int = TOGETHER) -> Sam2Tracker:
    """Teacher "sam2". batch: clips that are tracked at once. The rest, and errors, as `masks.load_tracker`."""
    config, state, names = _weights(checkpoint, config)
    model = build_sam2(config, seed)
    if state is not None:
        state = to_sam2(state, model.state_dict()) if names == "transformers" else state
        fill(model, state, f"'{checkpoint}' does not fit its own sizes", "Fetch the file again.")
    return Sam2Tracker(model, config, device, batch)


# ---------------------------------------------------------------------------------------------- transformers
class TransformersTracker(_Sam2):
    """transformers' `Sam2VideoModel`, clip by clip; needs no package sam2."""

    def _forwards(self, shown, prompts):
        return [self._one(shown[i:i + 1], prompts[i:i + 1]) for i in range(len(prompts))]

    def _one(self, shown, prompt):
        from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

        pictures, points, masks = self._inputs(shown, prompt)
        places = {f"{what}_device": self.device for what in ("inference", "inference_state", "video_storage")}
        session = Sam2VideoInferenceSession(pictures[0], *shown.shape[2:4], **places, dtype=torch.float32)
        number = session.obj_id_to_idx(0)
        if points is not None:                                        # (b, objects, points, ...) there
            session.add_point_inputs(number, 0, {name: value[:, None] for name, value in points.items()})
        else:
            session.add_mask_inputs(number, 0, masks)
        session.obj_with_new_inputs = [0]
        with decoder_calls(self.model.mask_decoder) as calls:
            steps = list(self.model.propagate_in_video_iterator(session, start_frame_idx=0))
            features = torch.cat([given for given, _ in calls])
        if masks is not None:
            features[0] += self.model.no_memory_embedding.reshape(-1, 1, 1)
        logits = torch.stack([step.pred_masks.reshape(1, *step.pred_masks.shape[-2:]) for step in steps])
        scores = torch.stack([step.object_score_logits.reshape(()) for step in steps])
        return self._tracked(logits[None], scores[None], features[None], shown.shape[2:4])[0]

    @torch.no_grad()
    def image_features(self, frames: np.ndarray) -> np.ndarray:
        """As `Sam2Tracker.image_features`."""
        pictures = self._pictures(check_frames(frames, who="SAM2"))
        parts = [self.model.vision_encoder(part, return_dict=True).fpn_hidden_states[-1] for part in pictures.split(self.batch)]
        return torch.cat(parts).float().cpu().numpy()


def load_transformers(checkpoint: str | Path | None = None, device: str = "cpu", config: Sam2Config | None = None, seed: int = 0,
                      batch: int = TOGETHER) -> TransformersTracker:
    """Teacher "sam2_transformers"; arguments and errors as `load_sam2`."""
    config, state, names = _weights(checkpoint, config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_transformers(config)
    if state is not None:
        state = to_transformers(state) if names == "sam2" else state
        fill(model, state, f"'{checkpoint}' does not fit its own sizes", "Fetch the file again.")
    return TransformersTracker(model, config, device, batch)


def _weights(checkpoint, config):
    """Sizes, state dict or None, whose names."""
    if config is not None and checkpoint is not None:
        raise MotionLabError("SAM2 got a checkpoint and a config.", fix="A checkpoint knows its sizes: give one of them.")
    return (config, None, "") if config is not None else read_checkpoint(checkpoint)
