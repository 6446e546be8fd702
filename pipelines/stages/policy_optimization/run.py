"""Policy gradients with a KL to the tuned model, as in the Gemma paper (arXiv:2403.08295, section 4).

The algorithm, a file of `methods/`, says what is charged to a reward, how rewards become advantages and which loss is
minimized. Where it says nothing else the reward of a response is R = r - kl_weight * sum_t (log pi_old - log pi_ref),
without a gradient through the KL, and with REINFORCE the loss is -mean((R - baseline) * log pi(response)).

Departures from the paper, which gives no details:
1. With several updates a rollout ratios to the policy that sampled are clipped; whose and how says the algorithm.
2. A response without a stop token may be charged `missing_stop_penalty`. The metric `reward` is free of this charge and
   of the KL.
3. With `rollout_dtype` a rounded copy of the policy draws the responses that are learned from. pi_old is still the
   policy; importance weights correct for the copy (`algorithms/importance.py`). Evaluations draw from the policy.
"""

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gemma_keras import GemmaCausalLM
from gemma_keras.backends import to_host
from pipelines.algorithms.kl import sequence_kl
from pipelines.algorithms.reward_shaping import shaped_rewards, steered_weight
from pipelines.data.contents import PromptHashes, SeenPrompts, prompt_hashes
from pipelines.host.errors import DataError
from pipelines.host.states import snapshot_folder
from pipelines.measures.throughput import SAMPLING, TRAINING
from pipelines.sampling.exact_kl import ExactKL
from pipelines.sampling.frozen import frozen_dtype
from pipelines.sampling.prompts import Prompts, encode_prompts
from pipelines.sampling.reference_policy import ReferencePolicy
from pipelines.sampling.rollout import ResponseScorer, Sampling
from pipelines.sampling.rollout_copy import RolloutCopy
from pipelines.scoring.raters import RaterSettings, gold_rater, make_rater, task_of
from pipelines.stages.context import StageContext
from pipelines.stages.policy_optimization.behaviour import BehaviourScorer
from pipelines.stages.policy_optimization.config import MOST_TOKEN_DEVIATION, PolicyOptimization
from pipelines.stages.policy_optimization.drawing import Drawing, Drawn, prompt_batches
from pipelines.stages.policy_optimization.methods.base import Scored
from pipelines.stages.policy_optimization.methods.registry import method_of
from pipelines.stages.policy_optimization.monitor import PolicyEvaluation
from pipelines.stages.policy_optimization.players import Course, Players
from pipelines.stages.policy_optimization.updates import (
    importance,
    rollout_figures,
    sampling_figures,
    update_batches,
)
from pipelines.training.adapters import adapter_figures, attach, save_trained
from pipelines.training.flops import training_flops
from pipelines.training.loop import Trainer
from pipelines.training.optimizers import OptimizerSettings

LARGEST_EVALUATION = 0.25  # of the prompts
SAMPLER_FIGURES = {"sampling_kl": "sampling_kl", "importance_truncated": "importance_weight/truncated"}
"""Final figure to the metric of a step that it is the mean of."""


def run(config: PolicyOptimization, context: StageContext) -> dict:
    """Optimize a policy against a reward and save it.

    Args:
        config: the stage's options. context: its surroundings; the model goes into `context.output / "model"`, an
            adapter beside it.

    Returns:
        `reward_start` and `reward_end` (mean of the first and last evaluation); where gold is known `gold_start`,
        `gold_end` and `gold_peak`, the highest; `kl` and `kl_sequence` (exact, at the last evaluation), `steps` (those
        that were made) and, where `stop_when` ended it before the last one, why (`stopped`),
        `reward_source`, counts, `ratio_deviation_token` (of the step where it was largest), `adapter_figures`; with
        `rollout_dtype` or a correction `sampling_kl` and `importance_truncated`, means over the steps, and with the
        former itself.
    """
    source = context.model_source(config.from_)
    context.doing("loading weights")
    policy = GemmaCausalLM.from_preset(source, dtype=config.dtype)
    attach(policy, config, context.seed)
    if config.lora is None:
        reference = ReferencePolicy(GemmaCausalLM.from_preset(source, dtype=frozen_dtype(config.dtype)))
    else:
        reference = ReferencePolicy(policy, is_adapter_off=True)
    examples = context.examples(config.data, "prompt")
    prompts = encode_prompts(policy.tokenizer, examples, config.max_length, config.max_new_tokens)
    hashes = [prompt_hashes(example) for example in prompts.examples]
    seen = context.seen_before(config)
    training_rows, evaluation_rows, seen_before = _split_prompts(hashes, seen, config, context)
    players = _players(config, context, policy, reference, prompts)
    evaluation = PolicyEvaluation(
        _sampling(policy, config, context),
        prompts,
        evaluation_rows,
        players.drawing.rater,
        gold_rater(task_of(config.data)) if config.gold == "task" else None,
        ExactKL(policy, reference, config.temperature, _micro_batch_size(config)),
        context.output / "samples.jsonl",
    )
    learned_from = seen | SeenPrompts.of(hashes[i] for i in training_rows)
    save = functools.partial(save_trained, model=policy, source=source, seen=learned_from)
    evaluations, found = _train(players, evaluation, training_rows, config, context, save)
    first, last = evaluations[0], evaluations[-1]
    context.doing("saving the model")
    save(context.output)
    golds = [figures["eval_gold"] for figures in evaluations] if config.gold else []
    gold = {"gold_start": golds[0], "gold_end": golds[-1], "gold_peak": max(golds)} if golds else {}
    return {
        "reward_start": first["eval_reward"],
        "reward_end": last["eval_reward"],
        **gold,
        "kl": last["eval_kl"],
        "kl_sequence": last["eval_kl_sequence"],
        "reward_source": players.drawing.rater.source,
        "prompts": len(training_rows),
        "eval_prompts": len(evaluation_rows),
        "heldout_seen_before": seen_before,
        "dropped_prompts": prompts.dropped,
        "skipped_updates": players.trainer.skipped,
        "tokens": players.trainer.tokens,
        **found,
        **adapter_figures(policy),
    }


def _train(
    players: Players, evaluation: PolicyEvaluation, rows: np.ndarray, config: PolicyOptimization, context: StageContext,
    save: Callable[[Path], None],
) -> tuple[list[dict[str, float]], dict[str, Any]]:  # fmt: skip
    """The loop; `save` writes the policy into a folder. Returns the figures of each evaluation, and final ones of the
    steps."""
    saved = None if context.state is None else context.state.resume(context.warnings)
    course = Course() if saved is None else Course(**saved.record["course"])
    if saved is None:
        context.doing("measuring the policy before it learns")
        course.evaluations.append(evaluation.measure(0))
        context.log(0, **course.evaluations[0], **context.throughput.row(SAMPLING))
        players.method.start(course.evaluations[0]["eval_reward"])
    else:
        players.restore(saved)
    del saved  # a copy of weights and moments
    _measure_where_due(players, evaluation, course, config, context)
    batches = itertools.islice(prompt_batches(rows, config.prompts_per_step, context), course.rollouts, None)
    with context.progress(config.steps, "optimizing the policy", before=course.step) as progress:
        while course.step < config.steps and course.stopped is None:
            drawn = _step(players, batches, course, config, context)
            progress.advance(work=int(drawn.rollout.lengths.sum()))
            if config.save_every and course.step % config.save_every == 0:
                save(snapshot_folder(context.output, course.step))
            if context.state is not None:
                context.state.checkpoint(
                    course.step, config.steps, "steps", lambda: players.snapshot(course), context.warnings
                )
            _measure_where_due(players, evaluation, course, config, context)
    # At the last step nothing is left to be stopped; a longer stage that goes on from there would stop.
    stopped = course.stopped if course.step < config.steps else None
    if stopped is not None:
        context.warn(f"stopped after step {course.step} of {config.steps}: {stopped}")
    if course.measured < course.step:
        context.doing("measuring the policy")
        _measure(players, evaluation, course, config, context)
    if context.state is not None:
        context.state.finish()
    return course.evaluations, {
        "steps": course.step,
        **({} if stopped is None else {"stopped": stopped}),
        "ratio_deviation_token": course.largest_deviation,
        **_sampler_figures(course.sampler, config),
    }


def _step(
    players: Players, batches: Iterator[np.ndarray], course: Course, config: PolicyOptimization, context: StageContext
) -> Drawn:
    """Draw, learn and log. Moves `course` on."""
    step = course.step + 1
    if players.rollout_copy is not None:
        players.rollout_copy.refresh()
    with _obeying(players, course, config, context):
        drawn = players.drawing.draw(batches, step)
    metrics = _update(players, drawn, config)
    context.log(step, **metrics, **context.throughput.row(TRAINING), **context.throughput.row(SAMPLING))
    deviation = metrics["ratio_deviation_token"]
    if course.largest_deviation <= MOST_TOKEN_DEVIATION < deviation:
        context.warn(
            f"step {step}: before anything was learned from a rollout its tokens' ratios lie "
            f"{deviation:.2g} from 1 in the mean, over {MOST_TOKEN_DEVIATION:g}: scoring and training compute "
            "different log-probabilities. Set dtype: float32; if it stays, it is a fault and no rounding."
        )
    course.step = step
    course.rollouts += 1 + int(drawn.figures["redraws"])
    course.sampler.append({name: metrics[of_step] for name, of_step in SAMPLER_FIGURES.items() if of_step in metrics})
    course.largest_deviation = max(course.largest_deviation, deviation)
    course.stopped = _reason_to_stop(metrics, config)
    return drawn


def _measure_where_due(
    players: Players, evaluation: PolicyEvaluation, course: Course, config: PolicyOptimization, context: StageContext
) -> None:
    """Measure the policy after each `eval_every`-th step, once."""
    if config.eval_every and course.step % config.eval_every == 0 and course.measured < course.step:
        _measure(players, evaluation, course, config, context)


def _measure(
    players: Players, evaluation: PolicyEvaluation, course: Course, config: PolicyOptimization, context: StageContext
) -> None:
    with _obeying(players, course, config, context):
        figures = evaluation.measure(course.step)
    course.evaluations.append(figures)
    course.measured = course.step
    context.log(course.step, **figures, **context.throughput.row(SAMPLING))


def _obeying(
    players: Players, course: Course, config: PolicyOptimization, context: StageContext
) -> contextlib.AbstractContextManager[None]:
    """Around what takes long and changes nothing: there a stop signal need not wait."""
    if context.state is None:
        return contextlib.nullcontext()
    return context.state.changing_nothing(
        course.step, config.steps, "steps", lambda: players.snapshot(course), context.warnings
    )


def _reason_to_stop(metrics: Mapping[str, float], config: PolicyOptimization) -> str | None:
    """Why a stage ends before its last step; None where it goes on."""
    limit = config.stop_when
    if limit is None or metrics["kl_sequence"] <= limit.kl_sequence:
        return None
    return f"kl_sequence of the rollout is {metrics['kl_sequence']:.4g}, over stop_when's {limit.kl_sequence:g}"


def _sampler_figures(steps: list[dict[str, float]], config: PolicyOptimization) -> dict[str, Any]:
    """What the report says of a sampler other than the policy: means over the steps."""
    means = {name: float(np.mean([of_step[name] for of_step in steps])) for name in steps[0]}
    return means if config.rollout_dtype is None else {"rollout_dtype": config.rollout_dtype, **means}


def _update(players: Players, drawn: Drawn, config: PolicyOptimization) -> dict[str, float]:
    """Learn from a rollout. Returns the step's metrics."""
    rollout, scores = drawn.rollout, drawn.scores
    old_log_probs, entropy = players.policy_scorer(rollout)
    with players.reference.computing():
        reference_log_probs, _ = players.reference_scorer(rollout)
    kl = to_host(sequence_kl(old_log_probs, reference_log_probs, rollout.response_mask))
    rewards = shaped_rewards(scores.total, config.reward_clip, config.whiten_rewards)
    scored = Scored(rollout, rewards, old_log_probs, reference_log_probs, kl, players.kl_weight)
    arrays = {"old_log_probs": old_log_probs, **players.method.batch_arrays(scored, config)}
    sampler = dict[str, float]()
    if config.measures_sampler:
        weights, sampler = importance(rollout, old_log_probs, config.correction, config.importance_limit)
        arrays |= {} if weights is None else {"importance_weights": weights}
    updates = []
    for _ in range(config.inner_updates):
        batches = list(update_batches(rollout, arrays, _micro_batch_size(config), drawn.counts))
        updates.append({**players.trainer.update(batches), **players.method.learn(batches)})
    steered = dict[str, float]()
    if config.kl_target is not None:
        steered["kl_weight"] = players.kl_weight
        players.kl_weight = steered_weight(players.kl_weight, float(kl.mean()), config.kl_target)
    return {
        **rollout_figures(rollout, scores.total.reshape(-1, config.samples_per_prompt), scores.parts, kl, entropy),
        **steered,
        **sampling_figures(rollout, old_log_probs, updates[0]),
        **sampler,
        "policy_loss": float(np.mean([metrics["loss"] for metrics in updates])),
        **{name: float(np.mean([metrics.get(name, 0.0) for metrics in updates])) for name in players.method.metrics},
        **{name: value for name, value in drawn.figures.items() if name in players.method.metrics},
        # Of the first update: the policy has not moved yet, so anything but rounding is a fault.
        **{name: updates[0][name] for name in ("ratio_deviation", "ratio_deviation_token")},
        **{name: updates[-1][name] for name in ("learning_rate", "grad_norm", "num_tokens", "skipped_updates")},
        "step_time": sum(metrics["step_time"] for metrics in updates),
    }


def _players(
    config: PolicyOptimization,
    context: StageContext,
    policy: GemmaCausalLM,
    reference: ReferencePolicy,
    prompts: Prompts,
) -> Players:
    micro_batch_size = _micro_batch_size(config)
    method = method_of(config.algorithm)
    method.set_up(config, context, micro_batch_size)
    settings = RaterSettings(
        config.dtype,
        config.quantize_reward_model,
        task_of(config.data),
        micro_batch_size,
        policy.config.vocabulary_size,
    )
    rollout_copy = None if config.rollout_dtype is None else RolloutCopy(policy, config.rollout_dtype)
    scorer = ResponseScorer(policy, config.temperature, micro_batch_size)
    return Players(
        drawing=Drawing(
            _sampling(policy if rollout_copy is None else rollout_copy.model, config, context),
            prompts,
            make_rater(config.reward, context, settings),
            method,
            config.samples_per_prompt,
        ),
        policy_scorer=scorer if config.measures_sampler else BehaviourScorer(scorer, compare_every=config.eval_every),
        reference=reference,
        reference_scorer=ResponseScorer(reference.model, config.temperature, micro_batch_size),
        method=method,
        trainer=Trainer(
            policy,
            method.loss(config),
            OptimizerSettings.of(config),
            config.steps * config.inner_updates,
            count_units=method.count_units,
            summarize=method.figures,
            throughput=context.throughput,
            count_flops=training_flops(policy),
        ),
        kl_weight=config.kl_weight,
        rollout_copy=rollout_copy,
    )


def _sampling(model: GemmaCausalLM, config: PolicyOptimization, context: StageContext) -> Sampling:
    responses = config.prompts_per_step * config.samples_per_prompt
    # Two widths: rollouts, and evaluations of one sample a prompt, each have shapes of their own.
    return Sampling(
        model, config.max_new_tokens, config.temperature, responses, context.seed, context.name,
        with_entropy=not config.measures_sampler, most_widths=2, throughput=context.throughput,
    )  # fmt: skip


def _split_prompts(
    hashes: Sequence[PromptHashes], seen: SeenPrompts, config: PolicyOptimization, context: StageContext
) -> tuple[np.ndarray, np.ndarray, int]:
    """Rows to train on; rows to evaluate on, one a prompt, of at most a quarter of the prompts; and how many of them
    an earlier stage was trained on.

    Raises:
        DataError: all prompts are one, so none can be held out.
    """
    split = context.hold_out(hashes, LARGEST_EVALUATION, seen, most=config.eval_prompts)
    if not len(split.heldout):
        raise DataError(
            f"stage {context.name!r}: its {len(hashes)} prompts have one content, so none can be held out for its "
            "evaluations. Expected two different prompts or more."
        )
    first_rows = {hashes[row].group: int(row) for row in split.heldout[::-1]}
    return split.training, np.sort(np.array(list(first_rows.values()), np.int64)), split.seen_before


def _micro_batch_size(config: PolicyOptimization) -> int:
    return config.rows_at_once() or 1
