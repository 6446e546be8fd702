"""The guarded optimizer step on JAX."""

import functools

import jax
import jax.numpy as jnp
import numpy as np


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
    def run(values, state_values, gradients, scale, clip_norm):
        norm = jnp.sqrt(sum(jnp.sum(jnp.square(g.astype(jnp.float32))) for g in gradients)) * scale
        factor = scale * jnp.where(clip_norm > 0, jnp.minimum(1.0, clip_norm / (norm + 1e-12)), 1.0)
        scaled = [(g * factor).astype(v.dtype) for g, v in zip(gradients, values, strict=True)]
        new_values, new_state = optimizer.stateless_apply(state_values, scaled, values)
        good = jnp.isfinite(norm)

        def keep(new, old):
            return jnp.where(good, new, old)

        return (
            jax.tree.map(keep, list(new_values), list(values)),
            jax.tree.map(keep, list(new_state), list(state_values)),
            norm,
        )

    def update(gradients, scale=1.0, clip_norm=0.0):
        values, states = [v.value for v in trainable], [v.value for v in state]
        values, states, norm = run(values, states, gradients, np.float32(scale), np.float32(clip_norm))
        for variable, value in zip(trainable + state, values + states, strict=True):
            variable.assign(value)
        return norm

    return update
