"""Best of n: the tuned model answers each prompt several times, and a reward keeps one of the answers, or the best few.

It is what a reward can do without any training, at a distance from the model that is known beforehand: the control that
policy optimization has to beat at equal KL. What it keeps is data for more instruction tuning, with the ids as sampled.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from gemma_keras import GemmaCausalLM
from pipelines.algorithms.best_of_n import best_of_n_kl, expected_best
from pipelines.data.contents import SeenPrompts, prompt_hashes
from pipelines.data.sources import DEMONSTRATIONS_FILE
from pipelines.host.errors import DataError
from pipelines.host.files import write_json_lines
from pipelines.measures.intervals import Bounds, groups_of
from pipelines.measures.judges import mean_with_interval
from pipelines.sampling.frozen import frozen_dtype
from pipelines.sampling.prompts import Prompts, encode_prompts
from pipelines.sampling.rollout import Rollout, Sampling
from pipelines.scoring.raters import RaterSettings, gold_rater, make_rater, task_of
from pipelines.stages.best_of_n.config import BestOfN
from pipelines.stages.context import StageContext


@dataclasses.dataclass(frozen=True)
class Values:
    """What every sample is worth: float (p, k), and between which bounds."""

    scores: np.ndarray
    bounds: Bounds | None


def run(config: BestOfN, context: StageContext) -> dict:
    """Sample, choose, and measure what choosing among more of them is worth.

    Args:
        config: the stage's options. context: its surroundings; `demonstrations.jsonl` goes into `context.output`.

    Returns:
        `curve`, see `curve_of`; `samples_per_prompt`, `reward_source`, `prompts`, `dropped_prompts`, `responses` and
        `tokens` sampled, `demonstrations` written, `unfinished` (chosen answers without a stop token, which are not).

    Raises:
        DataError: no chosen answer came to an end.
    """
    context.doing("loading weights")
    model = GemmaCausalLM.from_preset(context.model_source(config.from_), dtype=frozen_dtype(config.dtype))
    prompts = encode_prompts(
        model.tokenizer, context.examples(config.data, "prompt"), config.max_length, config.max_new_tokens
    )
    built_in = task_of(config.data)
    settings = RaterSettings(
        config.dtype, config.quantize_reward_model, built_in, config.batch_size, model.config.vocabulary_size
    )
    rater = make_rater(config.reward, context, settings)
    rollout = _sample(model, prompts, config, context)
    examples = [prompts.examples[i] for i in rollout.prompt_index]
    groups = (-1, config.samples_per_prompt)
    rewards = rater.score(examples, rollout).total.reshape(groups)
    values = {"reward": Values(rewards, rater.bounds)}
    if config.gold is not None:
        gold = gold_rater(built_in)
        values["gold"] = Values(gold.score(examples, rollout).total.reshape(groups), gold.bounds)
    best = chosen_rows(rewards, rollout, config.keep, config.least_reward)
    rows = [_demonstration(rollout, prompts, row, float(rewards.flat[row])) for row in best if rollout.finished[row]]
    if not rows:
        raise DataError(_why_nothing(config, context.name, rewards, len(best)))
    write_json_lines(context.output / DEMONSTRATIONS_FILE, rows)
    hashes = [prompt_hashes(example) for example in prompts.examples]
    (context.seen_before(config) | SeenPrompts.of(hashes)).write(context.output)
    return {
        "samples_per_prompt": config.samples_per_prompt,
        "curve": curve_of(values, groups_of(one.group for one in hashes)),
        "reward_source": rater.source,
        "prompts": len(prompts),
        "dropped_prompts": prompts.dropped,
        "responses": len(rollout),
        "tokens": int(rollout.lengths.sum()),
        "demonstrations": len(rows),
        "unfinished": len(best) - len(rows),
    }


def chosen_rows(rewards: np.ndarray, rollout: Rollout, keep: int, least_reward: float | None) -> list[int]:
    """The answers that are kept: rows of the rollout, prompt by prompt, the best first.

    Args:
        rewards: float (p, k). rollout: of the p * k responses.
        keep: at most so many of a prompt; of those with equal ids one. least_reward: of an answer that is kept.
    """
    found: list[int] = []
    k = rewards.shape[1]
    # Of equal rewards the last sample, as `expected_best` counts.
    for prompt, order in enumerate(np.argsort(rewards, axis=1, kind="stable")[:, ::-1]):
        kept: dict[tuple[int, ...], int] = {}
        for sample in order.tolist():
            if len(kept) < keep and (least_reward is None or rewards[prompt, sample] >= least_reward):
                kept.setdefault(tuple(rollout.response_list(prompt * k + sample)), prompt * k + sample)
        found += kept.values()
    return found


def _why_nothing(config: BestOfN, stage: str, rewards: np.ndarray, chosen: int) -> str:
    if not chosen:
        return (
            f"stage {stage!r}: no answer has a reward of least_reward {config.least_reward:g} or more; the highest of "
            f"{rewards.size} is {rewards.max():.4g}. Lower least_reward."
        )
    return (
        f"stage {stage!r}: none of {chosen} chosen answers came to an end within {config.max_new_tokens} tokens. Raise "
        "max_new_tokens."
    )


def curve_of(values: Mapping[str, Values], groups: np.ndarray) -> list[dict]:
    """What the best of 1, 2, 4, … samples is worth, up to all of them.

    Args:
        values: by name, of all samples; `reward` chooses. groups: int (p,), equal where prompts are the same.

    Returns:
        A dict a size: `n`, `kl_bound` in nats a response, and of each name the mean over prompts with its interval.
    """
    rewards = values["reward"].scores
    k = rewards.shape[1]
    sizes = [*(1 << power for power in range(k.bit_length()) if 1 << power < k), k]
    return [
        {
            "n": size,
            "kl_bound": best_of_n_kl(size),
            **{
                name: mean_with_interval(expected_best(rewards, one.scores, size), groups, one.bounds)
                for name, one in values.items()
            },
        }
        for size in sizes
    ]


def _sample(model: GemmaCausalLM, prompts: Prompts, config: BestOfN, context: StageContext) -> Rollout:
    sampling = Sampling(
        model, config.max_new_tokens, config.temperature, config.batch_size, context.seed, context.name,
        throughput=context.throughput,
    )  # fmt: skip
    with context.progress(len(prompts) * config.samples_per_prompt, "sampling", unit="responses") as progress:
        keep = context.parts("rollout", is_all=True)
        return sampling.sample(prompts, range(len(prompts)), config.samples_per_prompt, progress=progress, keep=keep)


def _demonstration(rollout: Rollout, prompts: Prompts, row: int, reward: float) -> dict:
    example = prompts.examples[rollout.prompt_index[row]]
    return {
        "prompt": example.prompt,
        "completion": rollout.texts[row],
        "prompt_ids": rollout.prompt_list(row),
        "completion_ids": rollout.response_list(row),
        "reward": reward,
        "content_hash": example.content,
    }
