"""Tiny snapshots with random weights of the pipelines that the kit loads, written by diffusers' `save_pretrained`."""
import json
from pathlib import Path

import torch

LETTERS = "abcdefghijklmnopqrstuvwxyz.,"
WIDTH, CHANNELS = 32, 4


def wan_snapshot(folder, seed=0, flow_shift=3.0) -> Path:
    """Wan 2.1's classes at toy size: two layers, latents of 4 channels."""
    from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
    from transformers import UMT5Config, UMT5EncoderModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformer = WanTransformer3DModel(
            patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=CHANNELS,
            out_channels=CHANNELS, text_dim=WIDTH, freq_dim=32, ffn_dim=48, num_layers=2, rope_max_seq_len=32)
        vae = AutoencoderKLWan(base_dim=4, z_dim=CHANNELS, dim_mult=[1, 1, 1, 1], num_res_blocks=1,
                               latents_mean=[0.1, -0.2, 0.3, -0.4], latents_std=[0.5, 0.8, 1.3, 2.0])
        text = UMT5EncoderModel(UMT5Config(**_text_config(), tie_word_embeddings=False))
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True,
                                        flow_shift=flow_shift)
    return _save(WanPipeline(tokenizer(), text, vae, scheduler, transformer), folder)


def cogvideox_snapshot(folder, seed=0, rotary=False) -> Path:
    """CogVideoX-2B's classes at toy size (made for 9 frames of 32x32); rotary=True: those of the 5B."""
    from diffusers import (AutoencoderKLCogVideoX, CogVideoXDDIMScheduler, CogVideoXDPMScheduler, CogVideoXPipeline,
                           CogVideoXTransformer3DModel)
    from transformers import T5Config, T5EncoderModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformer = CogVideoXTransformer3DModel(
            num_attention_heads=2, attention_head_dim=16, num_layers=2, in_channels=CHANNELS, out_channels=CHANNELS,
            time_embed_dim=16, text_embed_dim=WIDTH, max_text_seq_length=16, sample_width=4, sample_height=4,
            sample_frames=9, use_rotary_positional_embeddings=rotary)
        vae = AutoencoderKLCogVideoX(block_out_channels=(4, 4, 4, 4), latent_channels=CHANNELS, layers_per_block=1,
                                     norm_num_groups=2, scaling_factor=0.7 if rotary else 1.15258426)
        text = T5EncoderModel(T5Config(**_text_config()))
    scheduler = (CogVideoXDPMScheduler if rotary else CogVideoXDDIMScheduler)(
        beta_schedule="scaled_linear", prediction_type="v_prediction", rescale_betas_zero_snr=True,
        set_alpha_to_one=True, timestep_spacing="trailing", snr_shift_scale=1.0 if rotary else 3.0)
    return _save(CogVideoXPipeline(tokenizer(), text, vae, transformer, scheduler), folder)


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
