"""What the tests beside TRL's trainers share: optimizer settings, the gradients that ours was handed, TRL's steps, and
the two sides' names of one variable."""

import numpy as np

SETTINGS = {"schedule": "constant", "warmup_fraction": 0.0, "weight_decay": 0.0, "beta_2": 0.999}
"""AdamW at PyTorch's defaults, without decay."""
_LAYER = {"q_proj": "self_attn.q_proj", "o_proj": "self_attn.o_proj", "down_proj": "mlp.down_proj"}
NAMES = {
    "embedding": "model.embed_tokens.weight",
    **{f"layers.1.{ours}": f"model.layers.1.{theirs}.weight" for ours, theirs in _LAYER.items()},
}


def reward_of_ids(ids):
    """A reward that both sides know: a function of the sampled ids."""
    return ids[0] % 7 - 0.3 * len(ids)


def kept_gradients(trainer):
    """A function of a model's named variables: the gradients of the first of a trainer's updates, by name."""
    gradients, apply = {}, trainer._apply

    def spy(found, scale, clip_norm):
        for variable, gradient in zip(trainer.model.trainable_variables, found, strict=True):
            gradients.setdefault(id(variable), gradient.detach().numpy() * scale)
        return apply(found, scale, clip_norm)

    trainer._apply = spy
    return lambda named: {name: gradients[id(variable)] for name, variable in named.items()}


def gradients_of(model):
    """Those that stand in a model of transformers', by name."""
    return {name: value.grad.numpy().copy() for name, value in model.named_parameters()}


def norm_of(gradients):
    """Of all of them together, in double precision."""
    return sum(float((value.astype(np.float64) ** 2).sum()) for value in gradients.values()) ** 0.5


def compare_gradients(found, expected, names=NAMES):
    """Ours by our names with theirs by their names; their kernels lie the other way round."""
    for name, their_name in names.items():
        wanted = expected[their_name] if name == "embedding" else expected[their_name].T
        assert np.abs(found[name] - wanted).max() < 1e-5 * max(1, np.abs(wanted).max()), name


def twenty_steps(model, loss):
    """AdamW on what `loss` gives of a model of transformers'; its embedding before and after."""
    import torch

    start = model.model.embed_tokens.weight.detach().clone()
    # Keras adds epsilon outside the bias correction, PyTorch inside: next to nothing here.
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, weight_decay=0.0, eps=1e-7)
    for _ in range(20):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    return start, model.model.embed_tokens.weight.detach().clone()
