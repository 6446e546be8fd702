"""The rating step: the tuned model answers each prompt several times, and a rater chooses between the answers.

The rater is the built-in task's gold reward, a named function, a reward model, a judge that sees both answers, or
people: with `export: true` the pairs are written for them, and a later run of the stage reads their `ratings` and joins
them to the same pairs, which it samples again from the same draws.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gemma_keras import GemmaCausalLM
from pipelines.algorithms.preference import accuracy_ceiling
from pipelines.data.contents import SeenPrompts, prompt_hashes
from pipelines.data.human_ratings import EXPORT_FILE
from pipelines.data.sources import PREFERENCES_FILE
from pipelines.host.errors import DataError
from pipelines.host.files import write_json_lines
from pipelines.sampling.collected import write_responses
from pipelines.sampling.frozen import frozen_dtype
from pipelines.sampling.prompts import Prompts, encode_prompts
from pipelines.sampling.rollout import Rollout, Sampling
from pipelines.schema.pairwise import JudgeEndpoint, Judging, rater_source
from pipelines.scoring.pairwise.base import PairwiseJudge
from pipelines.scoring.pairwise.making import make_judge, own_rubric
from pipelines.scoring.pairwise.questions import GENERAL, rubric_for
from pipelines.scoring.raters import Rater, RaterSettings, make_rater, task_of
from pipelines.stages.context import StageContext
from pipelines.stages.preference_collection.config import PreferenceCollection
from pipelines.stages.preference_collection.pairs import (
    Pair,
    Verdict,
    export_rows,
    make_pairs,
    preference_rows,
    rate_by_judge,
    rate_by_people,
    rate_by_scores,
)

Rated = tuple[list[Verdict], np.ndarray | None, dict[str, Any]]
"""Verdicts, the scores of all responses where the rater scores, and figures."""


def run(config: PreferenceCollection, context: StageContext) -> dict:
    """Collect preferences.

    Args:
        config: the stage's options. context: its surroundings; `preferences.jsonl` and `responses.jsonl`, and with
            `export` `pairs_to_rate.jsonl`, go into `context.output`.

    Returns:
        `pairs` written, `identical_pairs` and `ties` dropped, `agreement` (share of pairs in which the rater took the
        better answer, pairs of equal scores by half) and what it is on average, `ceiling`, both over the pairs written;
        `mean_score`, `mean_length`, `prompts`, `dropped_prompts`, of people `unrated_pairs`, and of a judge what
        `rate_by_judge` says.
    """
    context.doing("loading weights")
    model = GemmaCausalLM.from_preset(context.model_source(config.from_), dtype=frozen_dtype(config.dtype))
    examples = context.examples(config.data, "prompt")
    prompts = encode_prompts(model.tokenizer, examples, config.max_length, config.max_new_tokens)
    by_people = config.export or config.ratings is not None
    # Whatever is wrong with the raters must show before hours of sampling.
    ratings = None if config.ratings is None else context.file(config.ratings, "with ratings")
    settings = RaterSettings(
        config.dtype,
        config.quantize_reward_model,
        task_of(config.data),
        config.batch_size,
        model.config.vocabulary_size,
    )
    rater = None if by_people or isinstance(config.rater, Judging) else make_rater(config.rater, context, settings)
    judging = config.rater if isinstance(config.rater, Judging) and not by_people else None
    judge = None if judging is None else _judge(judging, context, config.dtype)
    rollout = _sample(model, prompts, config, context)
    hashes = [prompt_hashes(example) for example in prompts.examples]
    (context.seen_before(config) | SeenPrompts.of(hashes)).write(context.output)
    pairs, identical = make_pairs(rollout, config.samples_per_prompt, context.seed, context.name)
    final = {
        "prompts": len(prompts),
        "dropped_prompts": prompts.dropped,
        "identical_pairs": identical,
        "mean_length": float(rollout.lengths.mean()),
        "truncated_responses": float(1 - rollout.finished.mean()),
    }
    if config.export:
        write_json_lines(context.output / EXPORT_FILE, export_rows(pairs, rollout, prompts))
        final["exported_pairs"] = len(pairs)
    if rater is not None:
        verdicts, scores, figures = _rated_by_scores(pairs, rollout, prompts, rater, config, context)
    elif judge is not None and judging is not None:
        verdicts, scores, figures = _rated_by_judge(pairs, rollout, prompts, judge, judging, context)
    elif ratings is not None:
        verdicts, scores, figures = _rated_by_people(pairs, ratings)
    else:
        return final
    if not verdicts:
        raise DataError(
            f"stage {context.name!r}: no preference is left: {identical} pairs were identical, {figures['ties']} ties. "
            "Raise samples_per_prompt or temperature, or use more prompts."
        )
    write_responses(context.output, rollout, config.samples_per_prompt)
    write_json_lines(context.output / PREFERENCES_FILE, preference_rows(verdicts, rollout, prompts, scores))
    return {**final, "pairs": len(verdicts), **figures}


def _sample(model: GemmaCausalLM, prompts: Prompts, config: PreferenceCollection, context: StageContext) -> Rollout:
    sampling = Sampling(
        model, config.max_new_tokens, config.temperature, config.batch_size, context.seed, context.name,
        throughput=context.throughput,
    )  # fmt: skip
    with context.progress(len(prompts) * config.samples_per_prompt, "sampling pairs", unit="responses") as progress:
        keep = context.parts("rollout", is_all=True)
        return sampling.sample(prompts, range(len(prompts)), config.samples_per_prompt, progress=progress, keep=keep)


def _rated_by_scores(
    pairs: Sequence[Pair],
    rollout: Rollout,
    prompts: Prompts,
    rater: Rater,
    config: PreferenceCollection,
    context: StageContext,
) -> Rated:
    scores = rater.score([prompts.examples[i] for i in rollout.prompt_index], rollout).total
    noise_scale = config.noise_scale if config.noise == "bradley_terry" else 0.0
    verdicts, ties = rate_by_scores(pairs, scores, rollout.prompt_index, noise_scale, context.seed, context.name)
    return (
        verdicts,
        scores,
        {"ties": ties, "mean_score": float(scores.mean()), "rater": rater.source, **_quality(verdicts, scores)},
    )


def _judge(settings: Judging, context: StageContext, dtype: str) -> PairwiseJudge:
    own_rubric(settings, context)  # whatever is wrong with it must show before hours of sampling
    return make_judge(settings, context, dtype)


def _rated_by_judge(
    pairs: Sequence[Pair],
    rollout: Rollout,
    prompts: Prompts,
    judge: PairwiseJudge,
    settings: Judging,
    context: StageContext,
) -> Rated:
    rubric = own_rubric(settings, context) or rubric_for(GENERAL)
    keep = context.parts("judge", at_once=isinstance(settings.judge, JudgeEndpoint))
    with context.progress(len(pairs), "asking the judge", unit="pairs"):
        found = rate_by_judge(pairs, rollout, prompts, settings, judge, rubric, keep, context.seed, context.name)
    verdicts, figures = found
    return verdicts, None, {**figures, "rater": rater_source(settings)}


def _rated_by_people(pairs: Sequence[Pair], ratings: Path) -> Rated:
    verdicts, ties, unrated = rate_by_people(pairs, ratings)
    return verdicts, None, {"ties": ties, "unrated_pairs": unrated, "rater": "people"}


def _quality(verdicts: Sequence[Verdict], scores: np.ndarray) -> dict:
    """How often the rater took the better answer, and the accuracy that the best judge of these labels can expect."""
    if not verdicts:
        return {}
    differences = np.array([scores[verdict.chosen] - scores[verdict.rejected] for verdict in verdicts])
    return {
        "agreement": float(np.mean(np.sign(differences) + 1)) / 2,
        "ceiling": accuracy_ceiling([verdict.probability for verdict in verdicts if verdict.probability is not None]),
    }
