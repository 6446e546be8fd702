"""One step of `fit` in a process of its own, and the most memory that it ever held.

    python tests/model/head_memory_probe.py TOKENS VOCABULARY all|few|dense

TOKENS in four rows, of which "all" bear loss, or a "few" of each row: the base, in which everything but the head is the
same. "dense" computes the logits of all tokens at once, for comparison by hand. Prints the peak resident memory in
bytes.
"""

import sys

import keras
import numpy as np

from gemma_keras import GemmaBackbone, GemmaCausalLM, GemmaConfig, head
from pipelines.host.process_memory import peak_memory_gib


def main(tokens: int, vocabulary: int, which: str) -> None:
    """Train one step and print the peak."""
    if which == "dense":
        head.DENSE_LOGITS = 1 << 62
    config = GemmaConfig(
        vocabulary_size=vocabulary,
        num_layers=1,
        num_query_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        hidden_dim=64,
        intermediate_dim=128,
    )
    model = GemmaCausalLM(GemmaBackbone(config, seed=None))
    token_ids = np.random.default_rng(0).integers(4, vocabulary, (4, tokens // 4)).astype(np.int32)
    is_target = np.ones(token_ids.shape, bool)
    if which == "few":
        is_target[:, 9:] = False
    model.compile(keras.optimizers.AdamW(1e-3))
    loss = model.fit({"token_ids": token_ids, "is_target": is_target}, batch_size=4, verbose=0).history["loss"][0]
    if abs(loss - np.log(vocabulary)) > 0.01:  # zero embeddings: the uniform distribution
        raise SystemExit(f"the loss is {loss}, expected log {vocabulary}")
    print(round(peak_memory_gib() * 2**30))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
