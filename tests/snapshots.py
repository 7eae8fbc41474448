"""Tiny snapshots with random weights of the pipelines that the kit loads, written by diffusers' `save_pretrained`."""
import json
from pathlib import Path

import torch

LETTERS = "abcdefghijklmnopqrstuvwxyz.,"
WIDTH, CHANNELS = 32, 4


def wan_snapshot(folder, seed=0, flow_shift=3.0, image=0) -> Path:
    """Wan 2.1's classes at toy size: two layers, latents of 4 channels. image: pictures that it takes, 1 first, 2 first and last."""
    from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanImageToVideoPipeline, WanPipeline, WanTransformer3DModel
    from transformers import UMT5Config, UMT5EncoderModel

    more = {"image_dim": WIDTH, "added_kv_proj_dim": 24, "pos_embed_seq_len": 2 * 17 if image == 2 else None} if image else {}
    with _seeded(seed):
        transformer = WanTransformer3DModel(
            patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=(2 * CHANNELS + 4) if image else CHANNELS,
            out_channels=CHANNELS, text_dim=WIDTH, freq_dim=32, ffn_dim=48, num_layers=2, rope_max_seq_len=32, **more)
        vae = AutoencoderKLWan(base_dim=4, z_dim=CHANNELS, dim_mult=[1, 1, 1, 1], num_res_blocks=1,
                               latents_mean=[0.1, -0.2, 0.3, -0.4], latents_std=[0.5, 0.8, 1.3, 2.0])
        text = UMT5EncoderModel(UMT5Config(**_text_config(), tie_word_embeddings=False))
        eyes = _image_encoder(32, 8) if image else None
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=flow_shift)
    if image:
        return _save(WanImageToVideoPipeline(tokenizer(), text, vae, scheduler, _image_processor(32), eyes, transformer), folder)
    return _save(WanPipeline(tokenizer(), text, vae, scheduler, transformer), folder)


def cogvideox_snapshot(folder, seed=0, rotary=False, version=1.0, image=False) -> Path:
    """CogVideoX-2B's classes at toy size (made for 9 frames of 32x32); rotary=True: those of the 5B; version 1.5; image: image to video."""
    from diffusers import (AutoencoderKLCogVideoX, CogVideoXDDIMScheduler, CogVideoXDPMScheduler, CogVideoXImageToVideoPipeline,
                           CogVideoXPipeline, CogVideoXTransformer3DModel)
    from transformers import T5Config, T5EncoderModel

    newer = {"patch_size_t": 2, "patch_bias": False} | ({"ofs_embed_dim": 16} if image else {}) if version == 1.5 else {}
    learned = {"use_learned_positional_embeddings": True} if image and version == 1.0 else {}
    with _seeded(seed):
        transformer = CogVideoXTransformer3DModel(
            num_attention_heads=2, attention_head_dim=16, num_layers=2, in_channels=(2 if image else 1) * CHANNELS, out_channels=CHANNELS,
            time_embed_dim=16, text_embed_dim=WIDTH, max_text_seq_length=16, sample_width=4, sample_height=4,
            sample_frames=9, use_rotary_positional_embeddings=rotary, **newer | learned)
        vae = AutoencoderKLCogVideoX(block_out_channels=(4, 4, 4, 4), latent_channels=CHANNELS, layers_per_block=1,
                                     norm_num_groups=2, scaling_factor=0.7 if rotary else 1.15258426, invert_scale_latents=version == 1.5)
        text = T5EncoderModel(T5Config(**_text_config()))
    scheduler = (CogVideoXDPMScheduler if rotary else CogVideoXDDIMScheduler)(
        beta_schedule="scaled_linear", prediction_type="v_prediction", rescale_betas_zero_snr=True,
        set_alpha_to_one=True, timestep_spacing="trailing", snr_shift_scale=1.0 if rotary else 3.0)
    kind = CogVideoXImageToVideoPipeline if image else CogVideoXPipeline
    return _save(kind(tokenizer(), text, vae, transformer, scheduler), folder)


def ltx_snapshot(folder, seed=0) -> Path:
    """LTX-Video's classes at toy size: 32 pixels and 8 frames per token."""
    from diffusers import AutoencoderKLLTXVideo, FlowMatchEulerDiscreteScheduler, LTXPipeline, LTXVideoTransformer3DModel
    from transformers import T5Config, T5EncoderModel

    with _seeded(seed):
        transformer = LTXVideoTransformer3DModel(in_channels=CHANNELS, out_channels=CHANNELS, num_attention_heads=2, attention_head_dim=12,
                                                 cross_attention_dim=24, num_layers=2, caption_channels=WIDTH)
        scaling = (True, True, True, False)
        vae = AutoencoderKLLTXVideo(latent_channels=CHANNELS, block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4,
                                    layers_per_block=(1,) * 5, decoder_layers_per_block=(1,) * 5, spatio_temporal_scaling=scaling,
                                    decoder_spatio_temporal_scaling=scaling)
        text = T5EncoderModel(T5Config(**_text_config()))
    vae.latents_mean.copy_(torch.tensor([0.1, -0.2, 0.3, -0.4]))
    vae.latents_std.copy_(torch.tensor([0.5, 0.8, 1.3, 2.0]))
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, base_image_seq_len=1024,
                                                max_image_seq_len=4096, shift_terminal=0.1)
    return _save(LTXPipeline(scheduler, vae, text, tokenizer(), transformer), folder)


def hunyuanvideo_snapshot(folder, seed=0) -> Path:
    """HunyuanVideo's classes at toy size: two text encoders, guidance as an input."""
    from diffusers import (AutoencoderKLHunyuanVideo, FlowMatchEulerDiscreteScheduler, HunyuanVideoPipeline,
                           HunyuanVideoTransformer3DModel)
    from transformers import LlamaConfig, LlamaModel

    with _seeded(seed):
        transformer = HunyuanVideoTransformer3DModel(
            in_channels=CHANNELS, out_channels=CHANNELS, num_attention_heads=2, attention_head_dim=12, num_layers=1, num_single_layers=1,
            num_refiner_layers=1, patch_size=2, patch_size_t=1, guidance_embeds=True, text_embed_dim=WIDTH, pooled_projection_dim=WIDTH,
            rope_axes_dim=(4, 4, 4))
        vae = AutoencoderKLHunyuanVideo(latent_channels=CHANNELS, block_out_channels=(8,) * 4, layers_per_block=1, norm_num_groups=4)
        llama = LlamaModel(LlamaConfig(vocab_size=40, hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4,
                                       num_key_value_heads=4))
        clip = _clip_text()
    return _save(HunyuanVideoPipeline(llama, words(400), transformer, vae, FlowMatchEulerDiscreteScheduler(shift=7.0), clip, words(77)), folder)


def svd_snapshot(folder, seed=0) -> Path:
    """Stable Video Diffusion's classes at toy size (made for 9 frames of 32x32)."""
    from diffusers import (AutoencoderKLTemporalDecoder, EulerDiscreteScheduler, StableVideoDiffusionPipeline,
                           UNetSpatioTemporalConditionModel)

    with _seeded(seed):
        unet = UNetSpatioTemporalConditionModel(
            sample_size=4, in_channels=2 * CHANNELS, out_channels=CHANNELS, block_out_channels=(32, 64), layers_per_block=1,
            down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
            up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"), addition_time_embed_dim=32,
            projection_class_embeddings_input_dim=96, cross_attention_dim=WIDTH, num_attention_heads=(2, 4), num_frames=9)
        vae = AutoencoderKLTemporalDecoder(block_out_channels=(32,) * 4, latent_channels=CHANNELS, layers_per_block=1,
                                           down_block_types=("DownEncoderBlock2D",) * 4)
        eyes = _image_encoder(224, 32, projected=True)
    scheduler = EulerDiscreteScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, interpolation_type="linear",
                                       prediction_type="v_prediction", sigma_max=700.0, sigma_min=0.002, steps_offset=1,
                                       timestep_spacing="leading", timestep_type="continuous", use_karras_sigmas=True)
    return _save(StableVideoDiffusionPipeline(vae, eyes, unet, scheduler, _image_processor(224)), folder)


def i2vgenxl_snapshot(folder, seed=0) -> Path:
    """I2VGen-XL's classes at toy size."""
    from diffusers import AutoencoderKL, DDIMScheduler, I2VGenXLPipeline, I2VGenXLUNet

    with _seeded(seed):
        unet = I2VGenXLUNet(sample_size=4, in_channels=CHANNELS, out_channels=CHANNELS, block_out_channels=(32, 64), layers_per_block=1,
                            down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"), up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
                            norm_num_groups=2, cross_attention_dim=WIDTH, attention_head_dim=8, num_attention_heads=None)
        vae = AutoencoderKL(block_out_channels=(32,) * 4, latent_channels=CHANNELS, layers_per_block=1, sample_size=32,
                            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4)
        eyes, text = _image_encoder(32, 8, projected=True), _clip_text()
    scheduler = DDIMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", rescale_betas_zero_snr=True,
                              steps_offset=1, timestep_spacing="leading", clip_sample=False, set_alpha_to_one=True)
    return _save(I2VGenXLPipeline(vae, text, words(77), eyes, _image_processor(32), unet, scheduler), folder)


SNAPSHOTS = {
    "wan": wan_snapshot, "wan-image": lambda folder, **o: wan_snapshot(folder, image=1, **o),
    "wan-last": lambda folder, **o: wan_snapshot(folder, image=2, **o),
    "cogvideox-2b": cogvideox_snapshot, "cogvideox-5b": lambda folder, **o: cogvideox_snapshot(folder, rotary=True, **o),
    "cogvideox-5b-image": lambda folder, **o: cogvideox_snapshot(folder, rotary=True, image=True, **o),
    "cogvideox-1.5": lambda folder, **o: cogvideox_snapshot(folder, rotary=True, version=1.5, **o),
    "cogvideox-1.5-image": lambda folder, **o: cogvideox_snapshot(folder, rotary=True, version=1.5, image=True, **o),
    "ltx": ltx_snapshot, "hunyuanvideo": hunyuanvideo_snapshot, "svd": svd_snapshot, "i2vgenxl": i2vgenxl_snapshot,
}
SIZES = {"ltx": (9, 64, 64)}                   # the smallest clip of a class with more than one token, if it is not the usual
CLIP = (9, 32, 32)


def words(length):
    """A tokenizer with a word per token: CLIP's and Llama's own need files that come with their weights."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    known = ["<pad>", "</s>", "<unk>", "a", "cat", "dog", "walks", "runs", "wheel", "turns", ".", ",", ":"]
    made = Tokenizer(models.WordLevel({word: k for k, word in enumerate(known)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=length)


def _seeded(seed):
    import contextlib

    @contextlib.contextmanager
    def inside():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield

    return inside()


def _clip_text():
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(CLIPTextConfig(vocab_size=40, hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                                        eos_token_id=1, pad_token_id=0, bos_token_id=2))


def _image_encoder(size, patch, projected=False):
    from transformers import CLIPVisionConfig, CLIPVisionModel, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, image_size=size,
                              patch_size=patch, projection_dim=WIDTH)
    return (CLIPVisionModelWithProjection if projected else CLIPVisionModel)(config)


def _image_processor(size):
    from transformers import CLIPImageProcessor

    return CLIPImageProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size})


def tokenizer():
    """T5's own class with one word per letter, built without network."""
    from transformers import T5TokenizerFast

    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((letter, -3.0) for letter in LETTERS)]
    return T5TokenizerFast(vocab=vocabulary, extra_ids=0)


def _text_config():
    return {"vocab_size": 40, "d_model": WIDTH, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4,
            "feed_forward_proj": "gated-gelu"}


def _save(pipeline, folder):
    pipeline.save_pretrained(str(folder))
    return Path(folder)


def edit_json(path: Path, **values) -> None:
    """Change entries of a JSON file; None takes an entry out."""
    content = json.loads(path.read_text(encoding="utf-8")) | values
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}), encoding="utf-8")
