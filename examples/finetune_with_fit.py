"""Fine-tune a Gemma with plain Keras: compile, fit, generate, save. Runs anywhere, downloads nothing.

    python examples/finetune_with_fit.py

The model is a tiny one with random weights and a tokenizer trained here. With real weights the next line is all that
changes:

    model = gemma_keras.GemmaCausalLM.from_preset("google/gemma-3-270m")
"""

import tempfile

# gemma_keras comes before Keras: it makes Keras use the backend that is installed, where none is named.
from gemma_keras import GemmaBackbone, GemmaCausalLM, GemmaConfig, GemmaTokenizer

# isort: split
import keras

COLOURS = {
    "sky": "blue", "grass": "green", "snow": "white", "coal": "black", "blood": "red", "lemon": "yellow",
    "plum": "purple", "ash": "grey",
}  # fmt: skip

# Prompt and completion: both are put into Gemma's turn format, and the loss is on the completion only.
examples = [
    {"prompt": f"What colour is {thing}?", "completion": f"{thing} is {colour}."} for thing, colour in COLOURS.items()
]

tokenizer = GemmaTokenizer.train(
    [f"user model {row['prompt']} {row['completion']}" for row in examples] * 4, vocabulary_size=320
)
config = GemmaConfig(
    vocabulary_size=tokenizer.vocabulary_size(),
    num_layers=2,
    num_query_heads=4,
    num_key_value_heads=1,  # one head of keys and values for all queries, as in Gemma 2B
    head_dim=16,
    hidden_dim=64,
    intermediate_dim=128,
)
model = GemmaCausalLM(GemmaBackbone(config, seed=0), tokenizer)
print(f"{config.parameter_count:,} parameters on {keras.backend.backend()}")

# `loss` is left alone: the model's own never stores the logits of the whole vocabulary.
model.compile(optimizer=keras.optimizers.AdamW(1e-2, weight_decay=0.0), sampler="greedy")
history = model.fit(examples, batch_size=8, epochs=30, verbose=0)
losses = history.history["loss"]
print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")

# A conversation in, the answer as text out. Each row stops at its end of turn.
questions = [[{"role": "user", "content": row["prompt"]}] for row in examples]
answers = model.generate(questions, max_length=48)
for row, answer in zip(examples, answers, strict=True):
    print(f"{row['prompt']}  {answer}")
right = sum(answer.strip() == row["completion"] for row, answer in zip(examples, answers, strict=True))
print(f"right: {right} of {len(examples)}")

# The folder opens in transformers, TRL, vLLM and llama.cpp's converter, and here again on any backend.
with tempfile.TemporaryDirectory() as folder:
    model.save_to_preset(folder)
    again = GemmaCausalLM.from_preset(folder)
    print("same answer after loading:", again.generate(questions[0], max_length=48, sampler="greedy") == answers[0])
