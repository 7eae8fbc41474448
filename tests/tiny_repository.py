"""A repository with tiny checkpoints and a tiny budget: every experiment runs on it in seconds."""
from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from motionlab.core.paths import repo_root
from motionlab.models.evaluator import Evaluator, EvaluatorConfig, save_evaluator
from motionlab.models.image_encoder import ImageEncoder, ImageEncoderConfig, save_image_encoder
from motionlab.models.small.backbone import Backbone, BackboneConfig, save_backbone
from motionlab.models.small.codec import Codec, CodecConfig, load_codec, save_codec
from motionlab.models.small.unet import UNet, UNetConfig, save_unet


def lay_out(home: Path, length: int = 3) -> Path:
    """Write it to `home`: the real protocol with a small budget, and random weights of every kind for `length` latent frames."""
    place = home / "reproductions" / "testbed" / "checkpoints"
    place.mkdir(parents=True)
    protocol = yaml.safe_load((repo_root() / "reproductions" / "protocol.yaml").read_text())
    protocol["budget"] |= {"fine_tune_clips": 8, "fine_tune_batch": 4, "fine_tune_clip_steps": {"default": 8, "videojam": 8}}
    (home / "reproductions" / "protocol.yaml").write_text(yaml.safe_dump(protocol))
    for name in ("notebooks", "lib"):
        (home / name).mkdir()
    shutil.copy(repo_root() / "pyproject.toml", home)
    save_codec(Codec(CodecConfig(channels=4, width=16, encoder_blocks=1, decoder_blocks=1)), place / "codec.safetensors")
    base = Backbone(BackboneConfig(channels=4, d=32, layers=2, heads=2, max_frames=length, d_text=16, d_time=16))
    base.codec_fingerprint = load_codec(place / "codec.safetensors").fingerprint
    save_backbone(base, place / "base.safetensors")
    unet = UNet(UNetConfig(channels=4, widths=(32, 32), heads=(2, 2), max_frames=9, d_text=16))
    unet.codec_fingerprint = base.codec_fingerprint
    save_unet(unet, place / "unet.safetensors")
    small = EvaluatorConfig(fine=16, width=16, embedding=8, fine_blocks=1, frame_blocks=1, time_blocks=1)
    for seed in (0, 1):
        save_evaluator(Evaluator(small), place / f"evaluator_{seed}.safetensors")
    save_image_encoder(ImageEncoder(ImageEncoderConfig(d=16, layers=1, heads=2)), place / "image_encoder.safetensors")
    return home


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The checkout of a module's tests."""
    home = lay_out(tmp_path_factory.mktemp("repository"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOTIONLAB_ROOT", str(home))
        yield home


def spot(folder: Path, name: str = "row") -> Path:
    """Where a row of a sweep below `folder` lies."""
    place = folder / "example" / "smoke" / name
    place.mkdir(parents=True, exist_ok=True)
    return place
