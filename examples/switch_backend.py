"""The same training on two backends: equal seeds give equal weights, and so equal losses up to rounding.

    python examples/switch_backend.py              # on two of the backends that are installed
    python examples/switch_backend.py jax torch    # on these

A process has one backend, chosen before Keras is imported, so this script starts itself once for each.
"""

import json
import os
import subprocess
import sys

from gemma_keras.backend_choice import installed_backends

STEPS = 10
TEXTS = ["the cat sat on the mat", "the dog sat on the log", "the frog sat on the rock", "the fox sat on the box"]


def losses_here() -> list[float]:
    """Losses of a few steps on the backend of this process. Nothing in here names a backend."""
    import keras

    from gemma_keras import GemmaBackbone, GemmaCausalLM, GemmaConfig, GemmaTokenizer

    tokenizer = GemmaTokenizer.train(TEXTS * 8, vocabulary_size=304)
    config = GemmaConfig(
        vocabulary_size=tokenizer.vocabulary_size(),
        num_layers=2,
        num_query_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        hidden_dim=32,
        intermediate_dim=64,
    )
    # Weights are drawn on the host from a counter-based generator: one seed, one set of numbers, whatever the backend.
    model = GemmaCausalLM(GemmaBackbone(config, seed=7), tokenizer)
    model.compile(optimizer=keras.optimizers.AdamW(1e-2, weight_decay=0.0))
    return model.fit(TEXTS, batch_size=len(TEXTS), epochs=STEPS, shuffle=False, verbose=0).history["loss"]


def losses_on(backend: str) -> list[float]:
    """`losses_here` in a new process on that backend."""
    done = subprocess.run(
        [sys.executable, __file__, "--here"],
        env={**os.environ, "KERAS_BACKEND": backend},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    if sys.argv[1:] == ["--here"]:
        print(json.dumps(losses_here()))
    else:
        backends = sys.argv[1:] or list(installed_backends())[:2]
        losses = {backend: losses_on(backend) for backend in backends}
        print("step  " + "  ".join(f"{backend:>10}" for backend in backends))
        for step in range(STEPS):
            print(f"{step:4}  " + "  ".join(f"{losses[backend][step]:10.6f}" for backend in backends))
        difference = max(max(step) - min(step) for step in zip(*losses.values(), strict=True))
        print(f"largest difference: {difference:.1e}")
