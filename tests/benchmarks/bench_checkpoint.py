"""What a checkpoint of an adapter costs beside one of the whole model, on a transformer of a thousand million random weights.

    python tests/benchmarks/bench_checkpoint.py [--repeats 3] [--layers 18]

An adapter's run keeps what it trains (weights, averages, optimiser state; here three copies of the weights stand for them) and a
digest of the rest. Bars: its checkpoint is at most 2 % of the whole model's, and is written and read in at most a tenth of the
time. Needs about 10 GB of memory and 12 GB of disk.
"""
from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from bench_training import interleaved, table


def big_transformer(layers: int):
    """CogVideoX's class at 2B's width, in bf16."""
    import torch
    from diffusers import CogVideoXTransformer3DModel

    with torch.device("meta"):
        model = CogVideoXTransformer3DModel(num_attention_heads=30, attention_head_dim=64, num_layers=layers, text_embed_dim=4096)
    model = model.to(torch.bfloat16).to_empty(device="cpu")
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=0.02)
    return model


def checkpointing(model, folder: Path):
    """Writes and reads a checkpoint of what is trained, as `training.loop` does."""
    from motionlab.training.checkpoints import read_checkpoint, write_checkpoint
    from motionlab.training.trained import frozen_fingerprint, load_trained, trained_state

    frozen = frozen_fingerprint(model)

    def run():
        state = trained_state(model)
        tensors = {"model.safetensors": state, "ema.safetensors": state, "optimizer.safetensors": {f"a.{k}": v for k, v in state.items()}}
        run.step += 1
        path = write_checkpoint(folder, run.step, tensors, {"frozen": frozen})
        _, found = read_checkpoint(path)
        load_trained(model, found["model.safetensors"])
        run.bytes = sum(file.stat().st_size for file in path.iterdir())

    run.step = 0
    return run


def main():
    import torch

    from motionlab.methods import open_method

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--layers", type=int, default=18)
    options = parser.parse_args()
    whole = big_transformer(options.layers)
    print(f"{sum(p.numel() for p in whole.parameters()) / 1e9:.2f} thousand million parameters, bf16")
    with tempfile.TemporaryDirectory(dir=".") as folder:
        everything = checkpointing(whole, Path(folder) / "whole")
        times = interleaved({"whole model": everything}, options.repeats)
        shutil.rmtree(Path(folder) / "whole")
        lora = open_method("lora")
        whole.requires_grad_(False)
        lora.attach_to(whole, 16)
        with torch.no_grad():
            adapter = checkpointing(whole, Path(folder) / "adapter")
            times |= interleaved({"adapter": adapter}, options.repeats)
    table("write and read a checkpoint", times, "whole model")
    print(f"bytes: whole {everything.bytes / 2**20:,.0f} MB, adapter {adapter.bytes / 2**20:,.1f} MB, ratio {adapter.bytes / everything.bytes:.4f}")


if __name__ == "__main__":
    main()
