"""A reward model on sets of preferences, in the manner of RewardBench (arXiv:2403.13787): the share of pairs whose
chosen answer scores higher, in each set and in each section, and the mean over sections, in which each counts alike.

Departures: intervals are over prompts, as of all figures here; it is said how many prompts the model had learned from.
"""

import dataclasses

import numpy as np

from gemma_keras.random import generator
from gemma_keras.text.tokenizer import GemmaTokenizer
from pipelines.data.batches import bucket
from pipelines.data.contents import PromptHashes, SeenPrompts, prompt_hashes
from pipelines.data.encoding import EncodedPair, encode_preferences
from pipelines.measures.intervals import groups_of, score_interval
from pipelines.scoring.pair_figures import figures_of_pairs
from pipelines.scoring.raters import open_reward_model
from pipelines.scoring.reward_models import SequenceScorer
from pipelines.stages.context import StageContext
from pipelines.stages.reward_evaluation.config import PreferenceSet, RewardEvaluation

FIGURES = (
    "accuracy",
    "accuracy_ci95",
    "margin",
    "calibration_error",
    "calibration_error_ci95",
    "calibration_error_if_perfect",
    "length_correlation",
    "pairs",
    "pair_prompts",
)
"""Of `figures_of_pairs`, for each set."""


@dataclasses.dataclass(frozen=True)
class EncodedSet:
    """A set as the model reads it.

    Args:
        name, section: as of the configuration. pairs: n of them. hashes: of the prompt of each.
        dropped, truncated: rows that were too long.
    """

    name: str
    section: str
    pairs: list[EncodedPair]
    hashes: list[PromptHashes]
    dropped: int
    truncated: int


def run(config: RewardEvaluation, context: StageContext) -> dict:
    """Score all pairs and count.

    Args:
        config: the stage's options. context: its surroundings.

    Returns:
        `reward`; `mean_accuracy` over sections; `sections`, a list of {`section`, `accuracy`, `accuracy_ci95`,
        `pairs`}; `sets`, a list of {`name`, `section`, `FIGURES`, `dropped_rows`, `truncated_rows`,
        `seen_in_training`: prompts that the model had learned from, None where nothing is known of its training}.
    """
    context.doing("loading weights")
    model = open_reward_model(config.model, context, config.dtype, config.quantize_reward_model)
    found = [_encoded(model.tokenizer, one, config, context) for one in config.sets]
    length = bucket(
        max(len(ids) for one in found for pair in one.pairs for ids in (pair.chosen_ids, pair.rejected_ids))
    )
    scorer = SequenceScorer(model, config.micro_batch_size)
    seen = context.seen_by(config.model)
    margins, sets = [], []
    with context.progress(len(found), "scoring", unit="sets") as progress:
        for one in found:
            sides = [pair.chosen_ids for pair in one.pairs] + [pair.rejected_ids for pair in one.pairs]
            chosen, rejected = np.split(scorer.raw_scores(sides, length), 2)
            margins.append(chosen.astype(np.float64) - rejected)
            sets.append(_figures_of_set(one, chosen, rejected, seen, context))
            progress.advance(work=sum(map(len, sides)))
    worst = max(one["seen_in_training"] or 0 for one in sets)
    if worst:
        context.warn(f"{config.model!r} learned from up to {worst} prompts of a set; see seen_in_training")
    sections = _sections(found, margins)
    return {
        "reward": config.model,
        "mean_accuracy": float(np.mean([one["accuracy"] for one in sections])),
        "sections": sections,
        "sets": sets,
    }


def _encoded(
    tokenizer: GemmaTokenizer | None, one: PreferenceSet, config: RewardEvaluation, context: StageContext
) -> EncodedSet:
    rows = context.examples(one.data, "preference")
    encoded = encode_preferences(tokenizer, rows, config.max_length, config.overlong)
    hashes = [prompt_hashes(rows[i]) for i in encoded.rows]
    section = one.section or one.name
    return EncodedSet(one.name, section, encoded.examples, hashes, encoded.dropped, encoded.truncated)


def _figures_of_set(
    one: EncodedSet, chosen: np.ndarray, rejected: np.ndarray, seen: SeenPrompts | None, context: StageContext
) -> dict:
    rng = generator(context.seed, context.name, "calibration", one.name)
    figures = figures_of_pairs(chosen, rejected, one.pairs, [hashed.group for hashed in one.hashes], rng)
    prompts = {hashed.content: hashed for hashed in one.hashes}
    return {
        "name": one.name,
        "section": one.section,
        **{key: figures[key] for key in FIGURES},
        "dropped_rows": one.dropped,
        "truncated_rows": one.truncated,
        "seen_in_training": None if seen is None else seen.overlap(prompts.values())["same_content"],
    }


def _sections(found: list[EncodedSet], margins: list[np.ndarray]) -> list[dict]:
    """Accuracy of all pairs of each section, in the order in which sections come first."""
    sections = []
    for name in dict.fromkeys(one.section for one in found):
        members = [place for place, one in enumerate(found) if one.section == name]
        is_right = np.concatenate([margins[place] for place in members]) > 0
        groups = groups_of([hashed.group for place in members for hashed in found[place].hashes])
        sections.append(
            {
                "section": name,
                "accuracy": float(is_right.mean()),
                "accuracy_ci95": list(score_interval(is_right, groups=groups)),
                "pairs": len(is_right),
            }
        )
    return sections
