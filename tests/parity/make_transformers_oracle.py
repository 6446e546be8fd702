"""Writes tiny random Gemmas with `transformers`, and the logits it computes for them, into
`tests/parity/transformers_oracle/`.

Run once, by hand, where `transformers` and `torch` are installed:

    python tests/parity/make_transformers_oracle.py

Each folder holds what `save_pretrained` wrote (config.json in the dialect of transformers 5), the same configuration in
the dialect of version 4 as the hub holds it (config_v4.json, written out by hand below), and oracle.npz: ids, padding
on either side, float32 logits.
"""

import json
import pathlib
import shutil

import numpy as np
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GemmaConfig,
    GemmaForCausalLM,
)

HERE = pathlib.Path(__file__).parent / "transformers_oracle"
COMMON = {
    "vocab_size": 97, "hidden_size": 24, "intermediate_size": 40, "num_attention_heads": 4, "head_dim": 8,
    "max_position_embeddings": 64, "rms_norm_eps": 1e-6, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2,
    "attention_bias": False, "attention_dropout": 0.0,
}  # fmt: skip
V4_COMMON = {
    "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh", "initializer_range": 0.02,
    "torch_dtype": "float32", "transformers_version": "4.42.4", "use_cache": True,
}  # fmt: skip

# name: (config class, model class, architecture's own keys, how version 4 spelled those that changed)
MODELS = {
    "gemma1_mqa": (
        GemmaConfig,
        GemmaForCausalLM,
        {"num_hidden_layers": 2, "num_key_value_heads": 1},
        {"rope_theta": 10000.0},
    ),
    "gemma1_mha": (
        GemmaConfig,
        GemmaForCausalLM,
        {"num_hidden_layers": 2, "num_key_value_heads": 4},
        {"rope_theta": 10000.0},
    ),
    "gemma2": (
        Gemma2Config,
        Gemma2ForCausalLM,
        {
            "num_hidden_layers": 3,
            "num_key_value_heads": 2,
            "sliding_window": 6,
            "query_pre_attn_scalar": 20,
            "attn_logit_softcapping": 5.0,
            "final_logit_softcapping": 3.0,
        },
        {"rope_theta": 10000.0},
    ),
    "gemma3": (
        Gemma3TextConfig,
        Gemma3ForCausalLM,
        {"num_hidden_layers": 7, "num_key_value_heads": 1, "sliding_window": 5, "query_pre_attn_scalar": 12},
        {"rope_theta": 1000000.0, "rope_local_base_freq": 10000.0, "sliding_window_pattern": 6, "rope_scaling": None},
    ),
}


def inputs() -> tuple[np.ndarray, np.ndarray]:
    """Four rows of 20 tokens: full, padded left, padded right, and short; ids (b, t), True where the token is real."""
    ids = np.random.default_rng(5).integers(4, 97, (4, 20)).astype(np.int32)
    real = np.ones(ids.shape, bool)
    real[1, :6] = real[2, -7:] = real[3, :16] = False
    return np.where(real, ids, 0), real


def main() -> None:
    """Write every folder anew."""
    ids, real = inputs()
    positions = np.where(real, real.cumsum(1) - 1, 0)
    for name, (config_class, model_class, own, v4) in MODELS.items():
        torch.manual_seed(7)
        config = config_class(**COMMON, **own)
        config._attn_implementation = "eager"
        model = model_class(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.randn_like(parameter) * 0.3)
            logits = model(
                torch.tensor(ids).long(),
                attention_mask=torch.tensor(real).long(),
                position_ids=torch.tensor(positions).long(),
            ).logits
        folder = HERE / name
        shutil.rmtree(folder, ignore_errors=True)
        model.save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
        old = {
            "architectures": [model_class.__name__],
            "model_type": config.model_type,
            **COMMON,
            **own,
            **V4_COMMON,
            **v4,
        }
        (folder / "config_v4.json").write_text(json.dumps(old, indent=2) + "\n")
        np.savez_compressed(folder / "oracle.npz", token_ids=ids, padding_mask=real, logits=logits.numpy())
        print(name, config.model_type, float(logits.abs().max()))


if __name__ == "__main__":
    main()
