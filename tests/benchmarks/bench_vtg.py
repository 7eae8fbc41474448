"""VTG on the small video U-Net: what sharing q and k costs beside stored maps, a fused step beside a plain one, LoRAs at once.

    python tests/benchmarks/bench_vtg.py [--repeats 9] [--threads 2] [--batch 4]

Variants are timed in turn within one run; the table gives medians and ratios. Bars: a fused sampling step at most 2.3 x a plain one (two
branches, guidance in both); a step of 16 LoRAs at once at most 0.3 x the 16 steps one by one. Without a bar, time and peak memory of the
forward and the backward branch's attention: with q and k handed on, and with maps that are made, kept and turned. Over frames alone maps
are the smaller ones (9 x 9 against 2 x 9 x 32 numbers a head); over all tokens of a video transformer they are not.
"""
from __future__ import annotations

import argparse
import multiprocessing
import threading

from bench_training import interleaved, table

SENTENCE = "a red dog runs to the left over the meadow"
SHAPES = {"frames of a U-Net": (4 * 144, 3, 9, 32), "all tokens of the small DiT": (4, 3, 752, 64), "4 096 tokens": (1, 8, 4096, 64)}


def unet_pipe():
    from motionlab.models.small.codec import Codec
    from motionlab.models.small.framewise import SmallUNetPipe
    from motionlab.models.small.unet import UNet

    return SmallUNetPipe(UNet().eval(), Codec().eval()).requires_grad_(False)


def sampling_steps(batch: int):
    """One sampler step, plain and fused, guidance in both."""
    import torch

    from motionlab.models.exchange import Exchange
    from motionlab.papers.vtg import fusion_weights
    from motionlab.papers.vtg.branches import Branches

    pipe = unet_pipe()
    pictures = torch.rand(2, batch, 3, 48, 48) * 2 - 1
    text, known, turned = pipe.text([SENTENCE] * batch), pipe.known(*pictures), pipe.known(*pictures.flip(0))
    x, t, exchange = torch.randn(batch, *pipe.shape), torch.full((batch,), 0.5), Exchange(pipe.denoiser)
    fused = {o: Branches(pipe, text, known, turned, 2.0, fusion_weights(9), exchange, o) for o in ("none", "E", "P")}
    return {"plain": lambda: fused["none"](x, t), "fused, q and k shared": lambda: fused["E"](x, t), "fused, own q and k": lambda: fused["P"](x, t)}


def lora_fits(n: int = 16):
    """One step of the LoRAs of n pictures."""
    import torch

    from motionlab.models.row_lora import RowLora, spatial_projections
    from motionlab.papers.vtg.ends import fit_loras

    pipe, z = unet_pipe(), torch.randn(n, 24, 12, 12)
    rows = RowLora(pipe.denoiser, spatial_projections(pipe.denoiser))

    def fit(part):
        fit_loras(pipe, rows, z[part], pipe.text([SENTENCE] * len(z[part])), rank=4, steps=1)

    return {"one by one": lambda: [fit(slice(i, i + 1)) for i in range(n)], f"{n} at once": lambda: fit(slice(0, n))}


def attention_of_both(shape, kind: str):
    """The attention of a forward and of a backward branch, without gradient."""
    import torch
    import torch.nn.functional as F

    q, k, v, v_back = (torch.randn(shape, generator=torch.Generator().manual_seed(i)) for i in range(4))

    def shared():
        return F.scaled_dot_product_attention(q, k, v), F.scaled_dot_product_attention(q.flip(2), k.flip(2), v_back)

    def stored():
        a = torch.softmax(q @ k.mT * shape[-1] ** -0.5, -1)
        return a @ v, a.flip(-2, -1) @ v_back

    return {"shared": shared, "stored": stored}[kind]


def peak(shape, kind: str, threads: int) -> int:
    """Peak memory (bytes) of a process that does nothing else."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak, (shape, kind, threads))


def _peak(shape, kind, threads):
    import psutil
    import torch

    torch.set_num_threads(threads)
    run, process, seen, done = attention_of_both(shape, kind), psutil.Process(), [], threading.Event()
    before = process.memory_info().rss

    def look():
        while not done.wait(0.001):
            seen.append(process.memory_info().rss)

    watcher = threading.Thread(target=look)
    watcher.start()
    run()
    done.set()
    watcher.join()
    return max(seen, default=before) - before


def main():
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for what, shape in SHAPES.items():
        variants = {"stored maps": attention_of_both(shape, "stored"), "shared q and k": attention_of_both(shape, "shared")}
        for a, b in zip(*(run() for run in variants.values())):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
        table(f"attention of both branches, {what}", interleaved(variants, options.repeats), "stored maps")
        mib = {kind: peak(shape, kind, options.threads) / 2 ** 20 for kind in ("stored", "shared")}
        print(f"peak above the inputs: stored maps {mib['stored']:.0f} MiB, shared q and k {mib['shared']:.0f} MiB\n")
    table(f"sampling step of the U-Net, 9 frames, batch {options.batch}, guided", interleaved(sampling_steps(options.batch), options.repeats), "plain")
    table("a step of LoRAs of single pictures", interleaved(lora_fits(), max(3, options.repeats // 3)), "one by one")


if __name__ == "__main__":
    main()
