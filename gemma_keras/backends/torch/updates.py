"""The guarded optimizer step on PyTorch."""

import torch

from gemma_keras.backends.torch.fused_adam import fast_updates


def compile_update(optimizer, model):
    """A guarded optimizer step: a callable (gradients, scale, clip_norm) → global gradient norm after scaling, float32
    ().

    Gradients are multiplied by `scale`, clipped to the global norm `clip_norm` (0: not clipped) and applied. Where the
    norm is not finite, weights and optimizer stay as they are. The gradients are used up: they are scaled in place.
    """
    trainable = list(model.trainable_variables)
    optimizer.build(trainable)

    def update(gradients, scale=1.0, clip_norm=0.0):
        with torch.no_grad(), fast_updates(optimizer):
            norms = torch.stack(torch._foreach_norm([g.float() for g in gradients]))
            norm = torch.linalg.vector_norm(norms) * scale
            if not torch.isfinite(norm):
                return norm
            factor = scale * (min(1.0, clip_norm / (float(norm) + 1e-12)) if clip_norm > 0 else 1.0)
            torch._foreach_mul_(gradients, factor)
            optimizer.apply(gradients, trainable)
        return norm

    return update
