"""Policies side by side on held-out prompts: who wins, how far each has moved from the reference, and what its
responses are worth."""

import functools
import itertools
import math

import numpy as np

from gemma_keras import GemmaCausalLM
from pipelines.data.contents import prompt_hashes
from pipelines.host.errors import ConfigError
from pipelines.host.files import write_json, write_json_lines
from pipelines.measures.intervals import groups_of
from pipelines.measures.judges import compare
from pipelines.sampling.frozen import frozen_dtype
from pipelines.sampling.prompts import Prompts, encode_prompts, prompt_text
from pipelines.schema.ensembles import as_said
from pipelines.scoring.raters import RaterSettings, gold_rater, make_rater, task_of
from pipelines.stages.context import StageContext
from pipelines.stages.evaluation.config import Evaluation
from pipelines.stages.evaluation.policy_measures import (
    Measured,
    PolicyResult,
    load_demonstrations,
    measure_policy,
    perplexity,
)


def run(config: Evaluation, context: StageContext) -> dict:
    """Evaluate and compare.

    Args:
        config: the stage's options. context: its surroundings; `evaluation.json` and `samples.jsonl` go into
            `context.output`.

    Returns:
        `judge`, `prompts`, and of the last policy against the first `policy`, `baseline`, `win_rate`, `tie_rate`,
        `loss_rate`, `win_rate_ci95`, `difference`; `seen_elsewhere`, see
        `StageContext.seen_elsewhere`.
    """
    reference_name = config.reference or config.compare[0]
    reference = _load(reference_name, config, context)
    examples = context.examples(config.data, "prompt")[: config.prompts]
    prompts = encode_prompts(reference.tokenizer, examples, config.max_length, config.max_new_tokens)
    groups = groups_of(prompt_hashes(example).group for example in prompts.examples)
    results = _measure_all(reference_name, reference, prompts, groups, config, context)
    pairs = _compare_all(results, groups, config, context)
    evaluation = {
        "judge": as_said(config.judge),
        "prompts": len(prompts),
        "dropped_prompts": prompts.dropped,
        "baseline": config.compare[0],
        "reference": reference_name,
        "seen_elsewhere": context.seen_elsewhere(config, prompts.examples),
        "pairs": pairs,
        "policies": {name: result.figures for name, result in results.items()},
    }
    write_json(context.output / "evaluation.json", evaluation)
    _write_samples(results, prompts, config.samples_kept, context)
    headline = [pair for pair in pairs if pair["baseline"] == config.compare[0]][-1:]
    keys = ("policy", "baseline", "win_rate", "tie_rate", "loss_rate", "win_rate_ci95", "difference")
    return {
        **{key: evaluation[key] for key in ("judge", "prompts", "dropped_prompts", "reference", "seen_elsewhere")},
        **({key: headline[0][key] for key in keys} if headline else {}),
    }


def _measure_all(
    reference_name: str,
    reference: GemmaCausalLM,
    prompts: Prompts,
    groups: np.ndarray,
    config: Evaluation,
    context: StageContext,
) -> dict[str, PolicyResult]:
    """Each policy in turn; besides the reference and the reward models only one of them is in memory."""
    built_in = task_of(config.data)
    settings = RaterSettings(
        config.dtype, config.quantize_reward_model, built_in, config.batch_size, reference.config.vocabulary_size
    )
    judge = make_rater(config.judge, context, settings)
    gold = None if built_in is None else gold_rater(built_in)
    demonstrations = load_demonstrations(config, context)
    results = {}
    with context.progress(len(prompts) * len(config.compare), "evaluating", unit="responses") as progress:
        for name in config.compare:
            model = reference if name == reference_name else _load(name, config, context)
            if model.tokenizer.encode_batch(_PROBES) != reference.tokenizer.encode_batch(_PROBES):
                raise ConfigError(f"stage {context.name!r}: {name!r} and {reference_name!r} have different tokenizers")
            result = measure_policy(name, model, reference, prompts, groups, judge, gold, config, context, progress)
            measure = functools.partial(_perplexity, model, demonstrations, config)
            found = float(context.parts(f"policy {name}")("perplexity", measure)["mean"])
            result.figures["perplexity"] = None if math.isnan(found) else found
            results[name] = result
    return results


_PROBES = ["The quick brown fox, 12345!", "<start_of_turn>", "naïve 東京"]


def _perplexity(model: GemmaCausalLM, demonstrations: list, config: Evaluation) -> dict[str, np.ndarray]:
    """`mean`, NaN where there is none."""
    found = perplexity(model, demonstrations, config.max_length, config.batch_size)
    return {"mean": np.array(math.nan if found is None else found)}


def _compare_all(
    results: dict[str, PolicyResult], groups: np.ndarray, config: Evaluation, context: StageContext
) -> list[dict]:
    """Every pair once, the earlier in `compare` as baseline."""
    found = []
    for baseline, policy in itertools.combinations(config.compare, 2):
        first, second = results[policy], results[baseline]
        found.append(
            {
                "policy": policy,
                "baseline": baseline,
                **compare(first.scores, second.scores, groups, context.seed, context.name, policy, baseline),
                "difference": _differences(first, second, groups),
            }
        )
    return found


def _differences(policy: PolicyResult, baseline: PolicyResult, groups: np.ndarray) -> dict:
    """Policy minus baseline on the same prompts, with intervals: of all that was measured of both."""

    def of_each(first: dict[str, Measured], second: dict[str, Measured]) -> dict:
        return {name: measured.difference(second[name], groups) for name, measured in first.items()}

    parts = of_each(policy.gold_parts, baseline.gold_parts)
    return {**of_each(policy.values, baseline.values), **({"gold_parts": parts} if parts else {})}


def _write_samples(results: dict[str, PolicyResult], prompts: Prompts, count: int, context: StageContext) -> None:
    rows = []
    for i, example in enumerate(prompts.examples[:count]):
        row = {
            "prompt": prompt_text(example),
            "completions": {name: result.rollout.texts[i] for name, result in results.items()},
            "scores": {name: float(result.scores[i]) for name, result in results.items()},
        }
        if example.answer is not None:
            row["answer"] = example.answer
        rows.append(row)
    write_json_lines(context.output / "samples.jsonl", rows)


def _load(name: str, config: Evaluation, context: StageContext) -> GemmaCausalLM:
    context.doing("loading weights")
    return GemmaCausalLM.from_preset(context.model_source(name), dtype=frozen_dtype(config.dtype))
