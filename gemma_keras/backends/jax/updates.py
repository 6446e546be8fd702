"""The guarded optimizer step on JAX."""

import functools

import jax
import jax.numpy as jnp
import numpy as np


@jax.jit
def _norm_of(gradients, scale):
    return jnp.sqrt(sum(jnp.sum(jnp.square(g.astype(jnp.float32))) for g in gradients)) * scale


def compile_update(optimizer, model):
    """A guarded optimizer step: a callable (gradients, scale, clip_norm) → global gradient norm after scaling, float32
    ().

    Gradients are multiplied by `scale`, clipped to the global norm `clip_norm` (0: not clipped) and applied. Where the
    norm is not finite, weights and optimizer stay as they are. The old weights' buffers are given to the new ones:
    nothing else may hold them.
    """
    trainable = list(model.trainable_variables)
    optimizer.build(trainable)
    state = list(optimizer.variables)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def run(values, state_values, gradients, scale, norm, clip_norm):
        factor = scale * jnp.where(clip_norm > 0, jnp.minimum(1.0, clip_norm / (norm + 1e-12)), 1.0)
        scaled = [(g * factor).astype(v.dtype) for g, v in zip(gradients, values, strict=True)]
        return optimizer.stateless_apply(state_values, scaled, values)

    def update(gradients, scale=1.0, clip_norm=0.0):
        scale = np.float32(scale)
        norm = _norm_of(gradients, scale)
        # Asked here and not in the program, where a choice between new and old keeps the old ones alive: XLA then
        # copies every weight and moment before it writes to them.
        if np.isfinite(norm):
            values, states = [v.value for v in trainable], [v.value for v in state]
            values, states = run(values, states, gradients, scale, norm, np.float32(clip_norm))
            for variable, value in zip(trainable + state, [*values, *states], strict=True):
                variable.assign(value)
        return norm

    return update
