"""SAM2 of any size, of the package's own classes and of transformers': the same network twice.

Nothing is composed by Hydra, which `import sam2` sets up for the whole process: what was not there before is cleared again.
"""
from __future__ import annotations

from dataclasses import dataclass

import torch

from motionlab.core.errors import MotionLabError

INSTALL = "SAM2_BUILD_CUDA=0 pip install --no-build-isolation sam2 (`make setup` tries it); or choose teacher sam2_transformers."


MEMORY = 64              # channels of a memory: transformers knows no other


@dataclass(frozen=True)
class Sam2Config:
    """Sizes of a SAM 2.1; everything else is as in its release.

    image_size: side of its square input. embed_dim, heads: of the first of four stages, doubled at each. stages: blocks of each.
    global_blocks: blocks that see the whole frame (never the first of a stage). windows: of the others, in cells of their stage.
    positions: side of the learned map of positions. d_model: width of features at stride 16. memory_layers, memory_ff, dropout: of
    memory attention. layer_scale: where the memory fuser's gammas begin.

    Raises:
        MotionLabError: sizes of which no SAM2 can be built.
    """

    image_size: int = 1024
    embed_dim: int = 144
    heads: int = 2
    stages: tuple[int, ...] = (2, 6, 36, 4)
    global_blocks: tuple[int, ...] = (23, 33, 43)
    windows: tuple[int, ...] = (8, 4, 16, 8)
    positions: int = 7
    d_model: int = 256
    memory_layers: int = 4
    memory_ff: int = 2048
    layer_scale: float = 1e-6
    dropout: float = 0.1

    def __post_init__(self):
        starts = [sum(self.stages[:i]) for i in range(len(self.stages))]
        wrong = [what for what, bad in (
            ("image_size, a multiple of 32", self.image_size % 32 or self.image_size < 32),
            ("stages and windows, four of each, all at least 1", len(self.stages) != 4 or len(self.windows) != 4 or min(self.stages) < 1),
            ("windows[0], which divides image_size / 4", (self.image_size // 4) % max(1, self.windows[0])),
            ("global_blocks, no first block of a stage", set(self.global_blocks) & set(starts)),
            (f"d_model, a multiple of {MEMORY} above it", self.d_model <= MEMORY or self.d_model % MEMORY),
            ("embed_dim, a multiple of heads", self.embed_dim % self.heads)) if bad]
        if wrong:
            raise MotionLabError(f"No SAM2 can be built of {self}.", fix=f"Check {'; '.join(wrong)}.")

    @property
    def grid(self) -> int:
        """Cells a side of its features."""
        return self.image_size // 16


OFFICIAL = {
    "tiny": Sam2Config(embed_dim=96, heads=1, stages=(1, 2, 7, 2), global_blocks=(5, 7, 9), windows=(8, 4, 14, 7)),
    "small": Sam2Config(embed_dim=96, heads=1, stages=(1, 2, 11, 2), global_blocks=(7, 10, 13), windows=(8, 4, 14, 7)),
    "base_plus": Sam2Config(embed_dim=112, heads=2, stages=(2, 3, 16, 3), global_blocks=(12, 16, 20), windows=(8, 4, 14, 7), positions=14),
    "large": Sam2Config(),
}


# ---------------------------------------------------------------------------------------------- the package
def import_sam2():
    """The package's classes in one namespace.

    Raises:
        MotionLabError: it is not installed.
    """
    from types import SimpleNamespace

    try:
        from hydra.core.global_hydra import GlobalHydra

        before = GlobalHydra.instance().is_initialized()
        from sam2.modeling import memory_attention, memory_encoder
        from sam2.modeling.backbones import hieradet, image_encoder
        from sam2.modeling.position_encoding import PositionEmbeddingSine
        from sam2.modeling.sam.transformer import RoPEAttention
        from sam2.sam2_video_predictor import SAM2VideoPredictor
    except ImportError as error:
        raise MotionLabError(f"The package sam2 is not installed ({error}).", fix=INSTALL) from None
    if not before:
        GlobalHydra.instance().clear()
    return SimpleNamespace(attention=memory_attention, encoder=memory_encoder, hiera=hieradet, image=image_encoder,
                           Sine=PositionEmbeddingSine, Rope=RoPEAttention, Predictor=SAM2VideoPredictor)


def build_sam2(config: Sam2Config, seed: int = 0):
    """An untrained `SAM2VideoPredictor` (a `SAM2Base`) in eval mode, set up as the release sets up its video predictor.

    Raises:
        MotionLabError: the package is not installed.
    """
    kit, c = import_sam2(), config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        trunk = kit.hiera.Hiera(embed_dim=c.embed_dim, num_heads=c.heads, stages=c.stages, global_att_blocks=c.global_blocks,
                                window_spec=c.windows, window_pos_embed_bkg_spatial_size=(c.positions, c.positions))
        neck = kit.image.FpnNeck(position_encoding=kit.Sine(c.d_model), d_model=c.d_model, fpn_top_down_levels=[2, 3],
                                 backbone_channel_list=trunk.channel_list, fpn_interp_model="nearest")
        model = kit.Predictor(image_encoder=kit.image.ImageEncoder(trunk, neck, scalp=1), memory_attention=_memory_attention(kit, c),
                              memory_encoder=_memory_encoder(kit, c), image_size=c.image_size, **RELEASED)
    return model.eval()


RELEASED = dict(                                                     # sam2.1's configs, with the predictor's own settings
    sigmoid_scale_for_mem_enc=20.0, sigmoid_bias_for_mem_enc=-10.0, use_mask_input_as_output_without_sam=True,
    directly_add_no_mem_embed=True, no_obj_embed_spatial=True, use_high_res_features_in_sam=True, multimask_output_in_sam=True,
    iou_prediction_use_sigmoid=True, use_obj_ptrs_in_encoder=True, add_tpos_enc_to_obj_ptrs=True, proj_tpos_enc_in_obj_ptrs=True,
    use_signed_tpos_enc_to_obj_ptrs=True, only_obj_ptrs_in_the_past_for_eval=True, pred_obj_scores=True, pred_obj_scores_mlp=True,
    fixed_no_obj_ptr=True, multimask_output_for_tracking=True, use_multimask_token_for_obj_ptr=True, multimask_min_pt_num=0,
    multimask_max_pt_num=1, use_mlp_for_obj_ptr_proj=True, binarize_mask_from_pts_for_mem_enc=True,
    sam_mask_decoder_extra_args=dict(dynamic_multimask_via_stability=True, dynamic_multimask_stability_delta=0.05,
                                     dynamic_multimask_stability_thresh=0.98))


def _memory_attention(kit, c):
    rope = dict(embedding_dim=c.d_model, num_heads=1, downsample_rate=1, dropout=c.dropout, feat_sizes=(c.grid, c.grid))
    layer = kit.attention.MemoryAttentionLayer(
        activation="relu", dim_feedforward=c.memory_ff, dropout=c.dropout, d_model=c.d_model, pos_enc_at_attn=False,
        pos_enc_at_cross_attn_keys=True, pos_enc_at_cross_attn_queries=False, self_attention=kit.Rope(**rope),
        cross_attention=kit.Rope(rope_k_repeat=True, kv_in_dim=MEMORY, **rope))
    made = kit.attention.MemoryAttention(c.d_model, pos_enc_at_input=True, layer=layer, num_layers=c.memory_layers)
    for one in made.layers:                                            # the package copies one layer: let each begin differently
        for part in one.modules():
            if isinstance(part, torch.nn.Linear):
                part.reset_parameters()
    return made


def _memory_encoder(kit, c):
    block = kit.encoder.CXBlock(c.d_model, layer_scale_init_value=c.layer_scale)
    down = kit.encoder.MaskDownSampler(embed_dim=c.d_model, kernel_size=3, stride=2, padding=1)
    return kit.encoder.MemoryEncoder(out_dim=MEMORY, in_dim=c.d_model, mask_downsampler=down, position_encoding=kit.Sine(MEMORY),
                                     fuser=kit.encoder.Fuser(block, num_layers=2))


# ---------------------------------------------------------------------------------------------- transformers
def build_transformers(config: Sam2Config):
    """An untrained `transformers.Sam2VideoModel` of the same sizes, in eval mode."""
    from transformers import Sam2VideoModel
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        return Sam2VideoModel(transformers_config(config)).eval()
    finally:
        logging.set_verbosity(level)


def transformers_config(config: Sam2Config):
    """`Sam2VideoConfig` of the same sizes."""
    from transformers import Sam2VideoConfig

    c, dims = config, [config.embed_dim * 2 ** k for k in range(4)]
    backbone = dict(model_type="sam2_hiera_det_model", hidden_size=c.embed_dim, num_attention_heads=c.heads, image_size=[c.image_size] * 2,
                    blocks_per_stage=list(c.stages), embed_dim_per_stage=dims, window_size_per_stage=list(c.windows),
                    num_attention_heads_per_stage=[c.heads * 2 ** k for k in range(4)], global_attention_blocks=list(c.global_blocks),
                    window_positional_embedding_background_size=[c.positions] * 2)
    vision = dict(model_type="sam2_vision_model", backbone_config=backbone, backbone_channel_list=dims[::-1], fpn_hidden_size=c.d_model,
                  backbone_feature_sizes=[[c.grid * k] * 2 for k in (4, 2, 1)])
    return Sam2VideoConfig(
        vision_config=vision, prompt_encoder_config=dict(hidden_size=c.d_model, image_size=c.image_size),
        mask_decoder_config=dict(hidden_size=c.d_model), image_size=c.image_size, memory_attention_hidden_size=c.d_model,
        memory_attention_num_layers=c.memory_layers, memory_attention_feed_forward_hidden_size=c.memory_ff,
        memory_attention_dropout=c.dropout, memory_attention_rope_dropout=c.dropout, memory_attention_rope_feat_sizes=[c.grid] * 2,
        memory_encoder_hidden_size=c.d_model, memory_encoder_output_channels=MEMORY, mask_downsampler_embed_dim=c.d_model,
        memory_fuser_embed_dim=c.d_model, memory_fuser_intermediate_dim=4 * c.d_model, memory_fuser_layer_scale_init_value=c.layer_scale)


def config_of(theirs: dict) -> Sam2Config:
    """The sizes that a `config.json` of transformers names.

    Raises:
        MotionLabError: it is not of a SAM 2 for video, or lacks sizes.
    """
    if theirs.get("model_type") not in ("sam2_video", "sam2"):
        raise MotionLabError(f"The folder holds a '{theirs.get('model_type')}', not a sam2_video.", fix="Give a folder of SAM 2.1.")
    from transformers import Sam2VideoConfig

    full = Sam2VideoConfig(**{name: value for name, value in theirs.items() if name not in ("model_type", "architectures")})
    spine, side = full.vision_config.backbone_config, full.image_size
    return Sam2Config(
        image_size=side if isinstance(side, int) else side[0], embed_dim=spine.hidden_size, heads=spine.num_attention_heads,
        stages=tuple(spine.blocks_per_stage), global_blocks=tuple(spine.global_attention_blocks),
        windows=tuple(spine.window_size_per_stage), positions=spine.window_positional_embedding_background_size[0],
        d_model=full.vision_config.fpn_hidden_size, memory_layers=full.memory_attention_num_layers,
        memory_ff=full.memory_attention_feed_forward_hidden_size, layer_scale=full.memory_fuser_layer_scale_init_value,
        dropout=full.memory_attention_dropout)
