"""Makes reward_oracle.npz: the scores that `transformers` gives to reward models that we saved.

Run under torch, in the repository's root: `KERAS_BACKEND=torch python tests/parity/make_reward_oracle.py`.

A model here is the backbone of `transformers_oracle/<name>` under a head keyed by `SEED`, which any backend can make
again.
"""

import os
import pathlib
import tempfile

os.environ["KERAS_BACKEND"] = "torch"

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification

from gemma_keras import GemmaRewardModel

HERE = pathlib.Path(__file__).parent
NAMES = ("gemma1_mqa", "gemma1_mha", "gemma2", "gemma3")
SEED = 23


def inputs(vocabulary_size: int, side: str) -> tuple[np.ndarray, np.ndarray]:
    """Five sequences of 1 to 12 tokens, padded to 12 on `side`: token_ids int32 (5, 12), padding_mask bool (5, 12)."""
    random = np.random.default_rng(5)
    token_ids, is_token = np.zeros((5, 12), np.int32), np.zeros((5, 12), bool)
    for row, length in enumerate((12, 7, 1, 9, 3)):
        place = slice(0, length) if side == "right" else slice(12 - length, 12)
        token_ids[row, place] = random.integers(3, vocabulary_size, length)
        is_token[row, place] = True
    return token_ids, is_token


def oracle_scores(folder, side: str, vocabulary_size: int) -> np.ndarray:
    """What `transformers` reads from a folder of ours, float32 (5,)."""
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    token_ids, is_token = inputs(vocabulary_size, side)
    with torch.no_grad():
        output = model(
            input_ids=torch.tensor(token_ids, dtype=torch.long), attention_mask=torch.tensor(is_token).long()
        )
    return output.logits[:, 0].numpy()


def main() -> None:
    """Write the file beside this script."""
    arrays = {}
    for name in NAMES:
        model = GemmaRewardModel.from_preset(HERE / "transformers_oracle" / name, seed=SEED)
        with tempfile.TemporaryDirectory() as folder:
            model.save_to_preset(folder)
            for side in ("left", "right"):
                arrays[f"{name}_{side}"] = oracle_scores(folder, side, model.config.vocabulary_size)
    np.savez(HERE / "reward_oracle.npz", **arrays)


if __name__ == "__main__":
    main()
