"""The hooks under both taps: they live inside a `with`, and leave outputs and gradients the same bits."""
from __future__ import annotations

import inspect
import math
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from motionlab.core.errors import MotionLabError
from motionlab.taps.calls import Call, Recording
from motionlab.taps.layouts import chosen_rows, refuse_compiled, selected_blocks, find_transformer
from motionlab.taps.reductions import reduce_attention


class _Tap:
    """What both taps share: which call of the transformer runs, and a recording that only whole calls enter."""

    def __init__(self, model, blocks, rows, when):
        self.transformer, self.layout = find_transformer(model)
        self.blocks = selected_blocks(self.transformer, self.layout, blocks)
        refuse_compiled(model, [getattr(block, self.layout.attention) for block in self.blocks.values()])
        self.rows, self.when = rows, when
        self.signature = inspect.signature(type(self.transformer).forward)
        self.seen = Recording(list(self.blocks))
        self.handles, self.count = [], 0
        self.call, self.found = None, {}

    def attach(self):
        self.handles += [self.transformer.register_forward_pre_hook(self._begin, with_kwargs=True),
                         self.transformer.register_forward_hook(self._commit, always_call=True)]

    def detach_all(self):
        for handle in self.handles:
            handle.remove()

    def _begin(self, module, args, kwargs):
        # Checkpointing runs blocks again outside of the transformer's forward, where self.call is None; checkpointing
        # around the transformer runs it again inside of the backward pass.
        self.call, self.found = None, {}
        if torch._C._current_graph_task_id() != -1:
            return
        call = self._describe(self.signature.bind_partial(module, *args, **kwargs).arguments)
        self.count += 1
        if self.when is None or self.when(call):
            self.call = call

    def _describe(self, inputs):
        grid = self.layout.grid(self.transformer.config, inputs)
        n = math.prod(grid)
        words = 0 if self.layout.text == "none" else inputs["encoder_hidden_states"].shape[1]
        first = words if self.layout.text == "first" else 0
        text = slice(0, first) if first else slice(n, n + words)
        b = len(inputs["hidden_states"])
        return Call(self.count, torch.as_tensor(inputs["timestep"]).detach().cpu().clone(), grid,
                    slice(first, first + n), text, b, chosen_rows(self.rows, b))

    def _commit(self, module, args, output):
        try:
            if self.call is not None and output is not None:        # else it is not recorded, or it raised
                found = {name: self.entry(name) for name in self.seen}
                self.seen.calls.append(self.call)
                for name, entries in self.seen.items():
                    entries.append(found[name])
        finally:
            self.call, self.found = None, {}

    def entry(self, name):
        """What is recorded of a block, at the end of the call; None if it did not run."""
        return self.found.get(name)

    def take(self, x):
        """The recorded rows of x (b, ...)."""
        return x if len(self.call.rows) == self.call.batch and self.rows is None else x[list(self.call.rows)]

    def check(self):
        empty = [name for name, entries in self.seen.items() if all(entry is None for entry in entries)]
        if not empty or (self.count and not self.seen.calls):       # `when` may want none of the calls
            return
        ran = f"in {self.count} call{'s' * (self.count != 1)} of the transformer" if self.count else \
            "because the transformer was not called"
        raise MotionLabError(f"The tap of '{empty[0]}' recorded nothing {ran}.",
                             fix="Call the model, eager and not compiled, inside the `with`.")


class FeatureTap(_Tap):
    def attach(self):
        super().attach()
        for name, block in self.blocks.items():
            module = block if self.at == "block" else getattr(block, self.layout.attention)
            self.handles.append(module.register_forward_hook(lambda _m, _a, output, name=name: self._see(name, output)))

    def _see(self, name, output):
        if self.call is None:
            return
        video = output if isinstance(output, torch.Tensor) else output[0]       # else (video, text), whatever the class
        if video.shape[1] != math.prod(self.call.grid):
            raise MotionLabError(f"Block '{name}' returned {video.shape[1]} tokens for a grid of {self.call.grid}.",
                                 fix="The tap does not know this way of calling the model; drop tokens beside the "
                                     "clip's own.")
        # Attached features wait for the end of the call: inside of a checkpointed block there may be no graph yet, and
        # what is computed here would be missing when the backward pass runs the block again.
        self.found[name] = self._reduced(video.detach()) if self.detach else video

    def entry(self, name):
        video = super().entry(name)
        if self.detach or video is None:
            return video
        if torch.is_grad_enabled() and not video.requires_grad:
            raise MotionLabError(f"The features of '{name}' were asked attached, but no gradient reaches them.",
                                 fix="Nothing up to this block is trained: unfreeze it, add LoRA, or tap a later one.")
        return self._reduced(video)

    def _reduced(self, video):
        video = self.take(video).unflatten(1, self.call.grid)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.detach):
            value = video if self.keep is None else self.keep(video)
        if self.detach and isinstance(value, torch.Tensor) and _same_storage(value, video):
            value = value.clone()                   # the model may write into its own tensors later
        return value


def _same_storage(a, b):
    return a.device == b.device and a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()


class AttentionTap(_Tap):
    """The function mode is on only while a tapped self-attention runs, so that nothing else sees it."""

    block = None                                     # whose attention runs; None: the mode is off

    def attach(self):
        super().attach()
        self.mode = _Watch(self._see)
        for name, block in self.blocks.items():
            module = getattr(block, self.layout.attention)
            self.handles += [
                module.register_forward_pre_hook(lambda _m, _a, name=name: self._enter(name)),
                module.register_forward_hook(lambda _m, _a, output: self._leave(output is None), always_call=True)]

    def detach_all(self):
        super().detach_all()
        self._off()

    def _enter(self, name):
        self._off()                                  # an interrupt may have left it on: no hook runs after one
        if self.call is not None:
            self.mode.__enter__()
            self.block = name

    def _leave(self, raised):
        name = self.block
        self._off()
        if name is not None and not raised and name not in self.found:
            raise MotionLabError(f"The self-attention of '{name}' ran without a call of scaled_dot_product_attention "
                                 f"over its {self.call.tokens} tokens.",
                                 fix="Use the eager native kernels: model.set_attention_backend('native'), and no "
                                     "other processors.")

    def _off(self):
        if self.block is not None:
            self.block = None
            self.mode.__exit__(None, None, None)

    def _see(self, query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
        call = self.call
        if query.dim() != 4 or not query.shape[2] == key.shape[2] == call.tokens:
            return
        if self.block in self.found:
            raise MotionLabError(f"The self-attention of '{self.block}' called the kernel more than once.",
                                 fix="The tap cannot tell which of them is the map; use the class's own processor.")
        query, key, attn_mask = (_autocast(x) for x in (query, key, attn_mask))
        if attn_mask is not None and attn_mask.dim() == 4 and len(attn_mask) == call.batch:
            attn_mask = self.take(attn_mask)
        self.found[self.block] = reduce_attention(
            self.take(query), self.take(key), call.grid, self.reduce, video=call.video, attn_mask=attn_mask,
            is_causal=is_causal, scale=scale, enable_gqa=enable_gqa, renormalise=self.renormalise, chunk=self.chunk)


class _Watch(TorchFunctionMode):
    """Shows the arguments of every `scaled_dot_product_attention` to `see`, and changes nothing."""

    def __init__(self, see):
        super().__init__()
        self.see = see

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            self.see(*args, **kwargs)
        return func(*args, **kwargs)


def _autocast(x):
    """x as autocast hands it to the kernel: this is below the level that the function mode sees."""
    if x is None or not torch.is_autocast_enabled(x.device.type) or x.dtype not in (torch.float32, torch.float16,
                                                                                    torch.bfloat16):
        return x
    return x.detach().to(torch.get_autocast_dtype(x.device.type))


@contextmanager
def opened(tap):
    try:
        tap.attach()
        yield tap.seen
    finally:
        tap.detach_all()
    tap.check()                                      # not after an exception, which says enough
