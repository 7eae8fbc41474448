"""Tiny CLIP and DINO folders with random weights, as transformers writes them."""
import json
from pathlib import Path

import torch

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
EYES = SMALL | {"image_size": 32, "patch_size": 16}


def clip_folder(folder: Path) -> Path:
    """CLIP with a vocabulary of single letters."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

    letters = "abcdefghijklmnopqrstuvwxyz"
    words = {word: i for i, word in enumerate(["<|startoftext|>", "<|endoftext|>", *letters, *(f"{one}</w>" for one in letters)])}
    tokenizer = CLIPTokenizer(vocab=json.loads(json.dumps(words)), merges=[])
    text = SMALL | {"vocab_size": len(words), "max_position_embeddings": 77, "bos_token_id": 0, "eos_token_id": 1}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CLIPModel(CLIPConfig(text_config=text, vision_config=EYES, projection_dim=8))
    model.save_pretrained(folder)
    CLIPProcessor(CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}), tokenizer).save_pretrained(folder)
    return folder


def dino_folder(folder: Path, pooler: bool = False) -> Path:
    """A ViT, without a pooler as the public DINO weights are."""
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ViTModel(ViTConfig(**EYES), add_pooling_layer=pooler)
    model.save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def dinov2_folder(folder: Path) -> Path:
    """DINOv2 of patches of 14 pixels."""
    from transformers import Dinov2Config, Dinov2Model, ViTImageProcessor

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Dinov2Model(Dinov2Config(**{k: v for k, v in SMALL.items() if k != "intermediate_size"}, image_size=28, patch_size=14))
    model.save_pretrained(folder)
    ViTImageProcessor(size={"height": 28, "width": 28}).save_pretrained(folder)
    return folder
