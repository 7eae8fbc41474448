"""Look inside a video DiT while it samples or trains: features after chosen blocks, reduced 3-D self-attention maps.

    with features(model, ["transformer_blocks.3"]) as seen:           # or blocks by index: [3]
        u = model(...)
    seen["transformer_blocks.3"][0]                                    # (b, f', h', w', d) of the first call

    with attention(model, {"offsets": OffsetMass(), "entropy": Entropy()}, blocks=[0, 4], rows="first_half") as seen:
        sample(...)
    torch.stack([call["offsets"] for call in seen["transformer_blocks.0"]]).sum(0).mean(1)     # over steps, over heads

Read by these classes of diffusers, also inside a wrapper such as `models.backbone.Backbone`:

| class | self-attention over | blocks |
|---|---|---|
| CogVideoXTransformer3DModel | text, then video | transformer_blocks |
| HunyuanVideoTransformer3DModel | video, then text | transformer_blocks (two streams), single_transformer_blocks |
| WanTransformer3DModel | video | blocks |
| LTXVideoTransformer3DModel | video | transformer_blocks |

Cross-attention is not tapped. (f', h', w') is the token grid: latent frames, height and width over the patch size.

Taps are invisible: they are forward hooks that live inside the `with`, and outputs and gradients stay the same bits.
q and k are taken at the call of `scaled_dot_product_attention`, so after RoPE and QK-norm and with its scale and mask.
That is eager PyTorch only: kernels that go round that function (flash-attn, sage, xformers, flex) and compiled models
are refused with an error. A block that gradient checkpointing runs again in the backward pass is recorded once.
Source of the maps: DeT (arXiv 2503.17350) as released: all keys in the softmax, text columns dropped afterwards; it
takes the conditional half, the mean over heads and the sum over steps, which here are `rows=` and the caller's to do.
"""
from motionlab.taps.calls import Call, Recording
from motionlab.taps.reductions import (Entropy, FrameMass, OffsetMass, QueryMap, Reduction, Rows, by_offset, by_radius,
                                       reduce_attention)
from motionlab.taps.taps import attention, features

__all__ = ["Call", "Entropy", "FrameMass", "OffsetMass", "QueryMap", "Recording", "Reduction",
    "Rows", "attention", "by_offset", "by_radius", "features", "reduce_attention"]
