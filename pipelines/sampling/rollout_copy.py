"""A copy of a policy in rounded weights that only samples, for where decoding waits for the weights to be read.

What it draws is not drawn from the policy, which `algorithms/importance.py` measures and corrects.
"""

from typing import Any

import keras
from keras import ops

from gemma_keras import GemmaBackbone, GemmaCausalLM
from gemma_keras.layers.projection import Projection
from pipelines.sampling.frozen import frozen_dtype


class RolloutCopy:
    """The policy as it was at the last `refresh`, an active adapter in its kernels, so that a token costs no product
    with it.

    Args:
        policy: `GemmaCausalLM`; its kernels are not quantized.
        rollout_dtype: "bfloat16" holds and multiplies all weights but the scales of norms in bfloat16. "int8" holds the
            kernels of projections in 8 bits, one scale a column, and computes as the policy does.

    Attributes:
        model: `GemmaCausalLM`. Its variables stay the same, so that what was compiled for it stays.
    """

    def __init__(self, policy: Any, rollout_dtype: str) -> None:
        self._policy = policy
        # Keras quantizes from no mixture of policies.
        dtype = frozen_dtype("mixed_bfloat16") if rollout_dtype == "bfloat16" else policy.backbone.dtype_policy
        self.model = GemmaCausalLM(GemmaBackbone(policy.config, dtype=dtype, seed=None), policy.tokenizer)
        if rollout_dtype == "int8":
            self.model.quantize("int8")
        self.refresh()

    def refresh(self) -> None:
        """Take the policy's present weights over, one at a time."""
        variables, theirs = self.model.backbone.named_variables(), self._policy.backbone.named_variables()
        quantized = self.model.backbone.projections()
        for name, layer in self._policy.backbone.named_layers().items():
            if not isinstance(layer, Projection):
                variables[name].assign(theirs[name])
            elif quantized[name].quantization_mode is None:
                variables[name].assign(_kernel(layer))
            else:
                # As Keras' `quantize` does, which would make new variables.
                kernel, scale = keras.quantizers.abs_max_quantize(_kernel(layer), axis=0)
                variables[name].assign(kernel)
                quantized[name].kernel_scale.assign(ops.squeeze(scale, axis=0))


def _kernel(projection: Projection) -> Any:
    """What a projection multiplies with, on the device; float32 where an adapter is part of it."""
    kernel, adapter = ops.convert_to_tensor(projection.kernel), projection.active
    if adapter is None:
        return kernel
    return ops.cast(kernel, "float32") + adapter.scale * ops.matmul(adapter.a, adapter.b)
