"""Train a Bradley-Terry reward model on preference pairs with plain Keras, and test it on pairs it has not seen.

    python examples/train_reward_model.py

Here the made-up rater prefers the polite one of two answers. With real weights, start from the tuned model's folder
instead: `GemmaRewardModel.from_preset(folder)`. The workflow stage `reward_modeling` does the same from a YAML file,
with intervals.
"""

import random

# gemma_keras comes before Keras: it makes Keras use the backend that is installed, where none is named.
from gemma_keras import GemmaBackbone, GemmaConfig, GemmaRewardModel, GemmaTokenizer

# isort: split
import keras
import numpy as np

from gemma_keras.losses import bradley_terry_loss
from gemma_keras.text.chat import encode_pair

random.seed(0)
THINGS = ["tea", "bread", "soap", "rope", "milk", "salt", "paper", "wood"]
POLITE = ["here is your {}, thank you.", "with pleasure, your {}.", "please take the {}, my friend."]
RUDE = ["take the {} and go.", "there, your {}, now leave.", "the {}, what else do you want."]


def draw_pair() -> tuple[str, str, str]:
    """A prompt, the answer that the rater prefers, the other one."""
    thing = random.choice(THINGS)
    return f"I need {thing}", random.choice(POLITE).format(thing), random.choice(RUDE).format(thing)


def as_arrays(pairs):
    """Rows 2 i and 2 i + 1 are chosen and rejected of pair i, prompt and answer in the turn format, padded on the
    right."""
    rows = [encode_pair(tokenizer, prompt, answer).token_ids for prompt, *answers in pairs for answer in answers]
    token_ids = np.zeros((len(rows), 48), np.int32)
    padding_mask = np.zeros((len(rows), 48), bool)
    for row, ids in enumerate(rows):
        token_ids[row, : len(ids)], padding_mask[row, : len(ids)] = ids, True
    return {"token_ids": token_ids, "padding_mask": padding_mask}  # scores are read at the last real token of each row


def pair_loss(_, scores):
    """-log sigmoid(chosen - rejected); there are no labels but the order of the rows."""
    return bradley_terry_loss(scores[0::2], scores[1::2])


pairs = [draw_pair() for _ in range(96)]
training, heldout = pairs[:64], pairs[64:]
tokenizer = GemmaTokenizer.train([" ".join(("user model", *pair)) for pair in training], vocabulary_size=400)
config = GemmaConfig(
    vocabulary_size=tokenizer.vocabulary_size(),
    num_layers=1,
    num_query_heads=2,
    num_key_value_heads=1,
    head_dim=16,
    hidden_dim=32,
    intermediate_dim=64,
)
model = GemmaRewardModel(GemmaBackbone(config, seed=0), tokenizer)
print(f"{config.parameter_count:,} parameters on {keras.backend.backend()}")


def accuracy() -> float:
    scores = model.predict(as_arrays(heldout), batch_size=64, verbose=0)
    return float(np.mean(scores[0::2] > scores[1::2]))


before = accuracy()
model.compile(optimizer=keras.optimizers.AdamW(3e-3, weight_decay=0.0), loss=pair_loss)
features = as_arrays(training)
# No shuffling: it would tear pairs apart.
history = model.fit(features, np.zeros(len(features["token_ids"])), batch_size=32, epochs=5, shuffle=False, verbose=0)
print(f"loss {history.history['loss'][0]:.3f} -> {history.history['loss'][-1]:.3f}")
print(f"accuracy on {len(heldout)} held-out pairs: {before:.2f} -> {accuracy():.2f}")
