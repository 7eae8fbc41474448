"""Weights of SAM2: the kit's small one, the official SAM 2.1 checkpoints and transformers' folders, for either build of the network."""
from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import torch

from motionlab.core.config import from_values
from motionlab.core.errors import MotionLabError
from motionlab.core.files import parse_json
from motionlab.teachers.sam2_build import OFFICIAL, Sam2Config, config_of
from motionlab.teachers.weights import load_state

KIND = "motionlab.sam2"
NEEDS = ("Give checkpoint=: a .safetensors of `make pretrain`, an official sam2.1_hiera_*.pt, or a folder that transformers wrote; "
         "or config=Sam2Config(...) for an untrained one.")


def read_checkpoint(path: str | Path | None) -> tuple[Sam2Config, dict[str, torch.Tensor], str]:
    """Sizes, tensors in float32, and whose names they bear, "sam2" or "transformers".

    Raises:
        MotionLabError: no path, nothing there, unreadable, weights of something else or of SAM 2.0.
    """
    if path is None:
        raise MotionLabError("SAM2 needs weights, and no checkpoint was named.", fix=NEEDS)
    path = Path(path).expanduser()
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise MotionLabError(f"There are no SAM2 weights at '{path}'.", fix=NEEDS)
    state = {name: value.float() for name, value in load_state(path).items()}
    config = _small_config(path) if path.suffix == ".safetensors" else None
    return config or official_config(state, path), state, "sam2"


def _small_config(path) -> Sam2Config | None:
    """Of the kit's own files, which carry it."""
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as file:
        meta = file.metadata() or {}
    if "kind" in meta and meta["kind"] != KIND:
        raise MotionLabError(f"'{path}' holds {meta['kind']}, not {KIND}.", fix=NEEDS)
    return from_values(Sam2Config, json.loads(meta["config"]), f"config of {path.name}") if "kind" in meta else None


def official_config(state: dict[str, torch.Tensor], path: Path) -> Sam2Config:
    """Which released SAM 2.1 a state dict is of, by its shapes.

    Raises:
        MotionLabError: none of them; SAM 2.0, which lacks what 2.1 added.
    """
    embed = state.get("image_encoder.trunk.patch_embed.proj.weight")
    blocks = len({name.split(".")[3] for name in state if name.startswith("image_encoder.trunk.blocks.")})
    fits = [one for one in OFFICIAL.values() if embed is not None and (one.embed_dim, sum(one.stages)) == (len(embed), blocks)]
    if not fits:
        raise MotionLabError(f"'{path}' is of no released SAM 2.1.", fix=NEEDS)
    if "no_obj_embed_spatial" not in state:
        raise MotionLabError(f"'{path}' is of SAM 2.0, where the kit takes 2.1.", fix="Fetch the sam2.1_ checkpoint of the same size.")
    return fits[0]


def _folder(path) -> tuple[Sam2Config, dict[str, torch.Tensor], str]:
    config, weights = path / "config.json", path / "model.safetensors"
    if not (config.is_file() and weights.is_file()):
        raise MotionLabError(f"'{path}' is no folder of transformers (config.json, model.safetensors).", fix=NEEDS)
    sizes = config_of(parse_json(config.read_text(encoding="utf-8")))
    return sizes, {name: value.float() for name, value in load_state(weights).items()}, "transformers"


def write_small(path: str | Path, model, config: Sam2Config, **card) -> Path:
    """The kit's own file of a network of the package: bf16, with sizes and card in its metadata."""
    from motionlab.core.files import save_weights

    tensors = {name: value.detach().cpu().bfloat16().contiguous() for name, value in model.state_dict().items()}
    meta = {"kind": KIND, "config": json.dumps(dataclasses.asdict(config))}
    return save_weights(path, tensors, meta | {name: str(value) for name, value in card.items()})


# ---------------------------------------------------------------------------------------------- names
MLP3 = r"(output_hypernetworks_mlps\.\d+|iou_prediction_head|pred_obj_score_head|object_pointer_proj)"
RULES = (                                                             # the package's names -> transformers', in this order
    (r"^maskmem_tpos_enc$", "memory_temporal_positional_encoding"), (r"^no_mem_embed$", "no_memory_embedding"),
    (r"^no_mem_pos_enc$", "no_memory_positional_encoding"), (r"^no_obj_ptr$", "no_object_pointer"),
    (r"^no_obj_embed_spatial$", "occlusion_spatial_embedding_parameter"), (r"^obj_ptr_proj\.", "object_pointer_proj."),
    (r"^obj_ptr_tpos_proj\.", "temporal_positional_encoding_projection_layer."),
    (r"^image_encoder\.trunk\.", "vision_encoder.backbone."), (r"patch_embed\.proj\.", "patch_embed.projection."),
    (r"^image_encoder\.neck\.convs\.(\d+)\.conv\.", r"vision_encoder.neck.convs.\1."),
    (r"^sam_mask_decoder\.", "mask_decoder."), (r"^sam_prompt_encoder\.", "prompt_encoder."),
    (r"output_upscaling\.0\.", "upscale_conv1."), (r"output_upscaling\.1\.", "upscale_layer_norm."),
    (r"output_upscaling\.3\.", "upscale_conv2."),
    (r"mask_downscaling\.0\.", "mask_embed.conv1."), (r"mask_downscaling\.1\.", "mask_embed.layer_norm1."),
    (r"mask_downscaling\.3\.", "mask_embed.conv2."), (r"mask_downscaling\.4\.", "mask_embed.layer_norm2."),
    (r"mask_downscaling\.6\.", "mask_embed.conv3."),
    (r"^memory_encoder\.out_proj\.", "memory_encoder.projection."), (r"pix_feat_proj\.", "feature_projection."),
    (r"mask_downsampler\.encoder\.12\.", "mask_downsampler.final_conv."),
    (r"\.fuser\.", ".memory_fuser."), (r"\.gamma$", ".scale"), (r"\.dwconv\.", ".depthwise_conv."),
    (r"\.pwconv(\d)\.", r".pointwise_conv\1."),
    (MLP3 + r"\.layers\.0\.", r"\1.proj_in."), (MLP3 + r"\.layers\.1\.", r"\1.layers.0."), (MLP3 + r"\.layers\.2\.", r"\1.proj_out."),
    (r"\.mlp\.layers\.0\.", ".mlp.proj_in."), (r"\.mlp\.layers\.1\.", ".mlp.proj_out."),
    (r"\.out_proj\.", ".o_proj."), (r"\.norm_final_attn\.", ".layer_norm_final_attn."), (r"\.norm(\d?)\.", r".layer_norm\1."),
)
POINTS, WAVES = "prompt_encoder.point_embed.weight", "positional_embedding"
THEIR_POINTS = "sam_prompt_encoder.point_embeddings.{}.weight"
THEIR_WAVES = "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"


def transformers_name(name: str) -> str:
    """What transformers calls a tensor of the package."""
    name = re.sub(r"mask_downsampler\.encoder\.(0|1|3|4|6|7|9|10)\.",
                  lambda m: f"mask_downsampler.layers.{int(m[1]) // 3}.{'layer_norm' if int(m[1]) % 3 else 'conv'}.", name)
    for pattern, new in RULES:
        name = re.sub(pattern, new, name)
    return name


def to_transformers(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state dict of the package as transformers' class loads it."""
    kept = [name for name in state if name != THEIR_WAVES and "point_embeddings" not in name]
    out = {transformers_name(name): state[name] for name in kept}
    out[POINTS] = torch.cat([state[THEIR_POINTS.format(k)] for k in range(4)])
    return out | {f"{owner}.{WAVES}": state[THEIR_WAVES] for owner in ("shared_image_embedding", "prompt_encoder.shared_embedding")}


def to_sam2(state: dict[str, torch.Tensor], names) -> dict[str, torch.Tensor]:
    """The reverse, for the package's tensors `names`; what transformers' file lacks is left out."""
    out = {}
    for name in names:
        if "point_embeddings" in name:
            found = state[POINTS][int(name.split(".")[2])][None] if POINTS in state else None
        elif name == THEIR_WAVES:
            found = state.get(f"shared_image_embedding.{WAVES}")
        else:
            found = state.get(transformers_name(name))
        if found is not None:
            out[name] = found
    return out
