"""Write a scene's clip and its whole truth to a folder: what `motionlab world` does."""
from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np

from motionlab.figures import truth_frames
from motionlab.core.files import ensure_writable, explained
from motionlab.video import write_gif, write_mp4
from motionlab.world.render import render
from motionlab.world.scenes import Scene, random_scene

FILES = ("clip.mp4", "clip.gif", "truth.mp4", "first.png", "truth.npz", "scene.yaml", "caption.json")


def write_world(seed: int = 0, size=256, out: str | Path = "out/world", scene: str | Path | None = None, frames: int = 17,
                fps: float = 16.0, points: int = 64) -> dict[str, Path]:
    """Render one scene and write video, pictures and truth.

    Args:
        seed: of `random_scene`, unless `scene` names a YAML file. size: pixels, a number or (h, w).
        points: how many foreground points the track file follows.

    Returns:
        name -> path of what was written: clip.mp4, clip.gif, truth.mp4 (flow, limbs, tracks beside the clip), first.png,
        truth.npz (frames, ids, flow, flow_backward, flow_visible, tracks, visible, masks, joints), scene.yaml, caption.json.
    Raises:
        MotionLabError: unreadable scene, size below the minimum, folder that cannot be written.
    """
    made = Scene.from_yaml(scene) if scene else random_scene(seed)
    clip, out = render(made, size, frames, fps), ensure_writable(out)
    tracks, visible = clip.tracks(clip.foreground_points(points, seed))
    return _write_all(clip, tracks, visible, out, fps)


def _write_all(clip, tracks, visible, out, fps):
    import yaml
    from PIL import Image

    draft = out / ".draft"
    with explained(out / "truth.npz"):
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        try:
            write_mp4(draft / "clip.mp4", clip.frames, fps)
            write_gif(draft / "clip.gif", clip.frames, fps)
            write_mp4(draft / "truth.mp4", truth_frames(clip, tracks, visible), fps)
            Image.fromarray(clip.frames[0]).save(draft / "first.png")
            np.savez_compressed(draft / "truth.npz", **_truth(clip, tracks, visible))
            said = {"caption": clip.caption, **clip.attributes}
            (draft / "scene.yaml").write_text(yaml.safe_dump(clip.scene.to_dict(), sort_keys=False), encoding="utf-8")
            (draft / "caption.json").write_text(json.dumps(said, indent=1), encoding="utf-8")
            for name in FILES:                             # all or nothing: never one clip's video beside another's truth
                os.replace(draft / name, out / name)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return {name: out / name for name in FILES}


def _truth(clip, tracks, visible):
    limbs = {f"mask_{i}_{name}": mask for i in range(len(clip.scene.actors)) for name, mask in clip.limb_masks(i).items()}
    joints = {f"joint_{i}_{name}": p["joint"] for i in range(len(clip.scene.actors)) for name, p in clip.pose(i).items()}
    motion = {"flow": clip.flow, "flow_backward": clip.flow_backward, "flow_visible": clip.flow_visible} if len(clip.frames) > 1 else {}
    seen = {"frames": clip.frames, "ids": clip.ids, "tracks": tracks, "visible": visible, "depth_order": np.array(clip.depth_order)}
    return seen | motion | limbs | joints
