"""One training loop for every model of the kit: one process, several processes, CPU or GPU, on accelerate.

    class Latents:                                     # anything with __len__ and batch(indices)
        def __len__(self): return len(self.x)
        def batch(self, indices): return self.x[indices]          # (b, ...) tensor, or a dict of them

    def loss_fn(model, x1, noise):                     # rectified flow: x_t = t x1 + (1-t) x0, v = x1 - x0
        t = torch.sigmoid(noise.randn() - 0.3)         # (b,)
        x0 = noise.randn(*x1.shape[1:])                # (b, ...)
        x_t = t[:, None] * x1 + (1 - t[:, None]) * x0
        per_sample = (model(x_t, t) - (x1 - x0)).square().mean(1)
        return per_sample.mean(), {"t": t, "per_sample": per_sample}

    result = train(model, loss_fn, Latents(), TrainConfig(steps=1000, out_dir="runs/base"))
    model.load_state_dict(result.ema_state())

Random numbers. `noise` holds one CPU `torch.Generator` per sample, seeded by (seed, step, global position in the
batch). What a sample draws is therefore the same for any number of processes and after any resume. (`noise` is a list,
so it can be given to diffusers' functions that take a list of generators.) Torch's global generator, which dropout
uses, is seeded again before each step from (seed, step, process): the state of every generator is a function of numbers
in the checkpoint, and no generator state has to be stored. With dropout, two processes differ from one; without, the
loss curves agree up to rounding. `data.batch` must be a function of its indices alone.

Several processes: `accelerate launch --num_processes 2 script.py` on GPUs, `torchrun --nproc_per_node 2 script.py` on
the CPU (there, `accelerate launch --cpu` starts one process whatever it is told). `batch_size` counts over all
processes. Process r takes the r-th contiguous slice of the batch, and the loss must be a mean over samples. In
`loss_fn` only call the model: with several processes it is wrapped, and its attributes are not visible. A model that
is too large for one GPU is sharded: `accelerate launch --config_file docs/accelerate_fsdp.yaml script.py` (FSDP2; with
AdamW only, and without samples in between).

Checkpoints hold what is trained: parameters with requires_grad and the buffers of their modules (`trained_names`). An
adapter over a base of 5 B parameters so writes megabytes. The base is known again by names, shapes and some of its values, and
resuming over another one is refused. `load_trained(model, result.ema_state())` puts a trained part over its base.
"""
from motionlab.core.noise import SampleNoise
from motionlab.training.checkpoints import checkpoints
from motionlab.training.config import TrainConfig, lr_factor
from motionlab.training.cursor import DataCursor
from motionlab.training.log import read_log
from motionlab.training.loop import TrainResult, train
from motionlab.training.optim import block_matrices
from motionlab.training.trained import load_trained, trained_names

__all__ = ["DataCursor", "SampleNoise", "TrainConfig", "TrainResult", "block_matrices", "checkpoints", "load_trained",
           "lr_factor", "read_log", "train", "trained_names"]
