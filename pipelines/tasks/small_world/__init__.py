"""The task `small_world`: short instructions about word lists, numbers and a made-up village.

A model of about a million parameters learns it in a minute or two on two CPU cores. Files:
world.py the village and all words, instructions.py prompts and answers, style.py how people answer,
gold.py the gold reward, splits.py which prompt belongs where, generator.py the draws.
"""

from pipelines.tasks.small_world.generator import pretraining_texts, prompts, tokenizer_texts
from pipelines.tasks.small_world.gold import WEIGHTS, gold_probability, gold_reward
from pipelines.tasks.small_world.splits import SPLITS

__all__ = [
    "SPLITS", "WEIGHTS", "gold_probability", "gold_reward", "pretraining_texts", "prompts",
    "tokenizer_texts",
]  # fmt: skip
