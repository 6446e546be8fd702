"""A policy from preferences, without a reward model and without sampling: DPO and its kin (losses in
`pipelines/algorithms/preference_losses.py`, each with its options a file of `losses/`).

Log-ratios are taken to the model as it starts, whose log-probabilities of all answers are computed once, before the
first update: it needs no memory beside the policy. Where the preferences come from a stage the policy sees exactly the
ids that were sampled.

`batch_size` and `micro_batch_size` count pairs here.
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from gemma_keras import GemmaCausalLM
from gemma_keras.random import generator
from pipelines.data.contents import SeenPrompts, prompt_hashes
from pipelines.data.encoding import EncodedPair, encode_preferences
from pipelines.sampling.frozen import frozen_dtype
from pipelines.scoring.pair_figures import figures_of_pairs
from pipelines.stages.context import StageContext
from pipelines.stages.preference_optimization.config import PreferenceOptimization
from pipelines.stages.preference_optimization.learning import train_policy
from pipelines.stages.preference_optimization.losses.base import Answers
from pipelines.stages.preference_optimization.references import Referenced, referenced
from pipelines.stages.preference_optimization.scoring import AnswerScorer
from pipelines.training.adapters import adapter_figures, attach, save_trained
from pipelines.training.batch_order import micro_batch_size


def run(config: PreferenceOptimization, context: StageContext) -> dict:
    """Train a policy on preferences and save it.

    Args:
        config: the stage's options. context: its surroundings; the model goes into `context.output / "model"`, an
            adapter beside it.

    Returns:
        Figures of `Trainer.fit` and `adapter_figures`; of the held-out pairs `figures_of_pairs`, where a score is what
        the policy says that an answer is worth (`PairLoss.rewards`); `loss`, its name; `training_pairs`,
        `heldout_seen_before` (see `Split`), `dropped_rows`, `truncated_rows`.
    """
    rows = context.examples(config.data, "preference")
    source = context.model_source(config.from_)
    context.doing("loading weights")
    policy = GemmaCausalLM.from_preset(source, dtype=config.dtype)
    attach(policy, config, context.seed)
    context.doing("tokenizing")
    encoded = encode_preferences(policy.tokenizer, rows, config.max_length, config.overlong)
    prompts = [prompt_hashes(rows[i]) for i in encoded.rows]
    seen = context.seen_before(config)
    split = context.hold_out(prompts, config.heldout_fraction, seen)
    training, heldout = ([encoded.examples[i] for i in part] for part in (split.training, split.heldout))

    context.doing("computing the log-probabilities of the reference")
    scorer = _reference_scorer(config, context, policy)
    learned = _referenced(training, scorer, config, context, "training")
    measured = _referenced(heldout, scorer, config, context, "heldout") if heldout else None
    del scorer  # and with it a reference of its own
    context.doing("compiling")
    learned_from = seen | SeenPrompts.of(prompts[i] for i in split.training)
    save = functools.partial(save_trained, model=policy, source=source, seen=learned_from)
    figures = train_policy(policy, learned, measured, config, context, save)
    context.doing("saving the model")
    save(context.output)
    groups = [prompts[i].group for i in split.heldout]
    return {
        **figures,
        **adapter_figures(policy),
        **({} if measured is None else _measure(policy, heldout, measured, groups, config, context)),
        "loss": config.loss.name,
        "training_pairs": len(training),
        "heldout_seen_before": split.seen_before,
        "dropped_rows": encoded.dropped,
        "truncated_rows": encoded.truncated,
    }


def _reference_scorer(
    config: PreferenceOptimization, context: StageContext, policy: GemmaCausalLM
) -> AnswerScorer | None:
    """Of the policy before its first update, whose adapter adds nothing yet; or of another model."""
    if not config.loss.has_reference:
        return None
    if config.reference is None:
        return AnswerScorer(policy, config.temperature)
    other = GemmaCausalLM.from_preset(context.model_source(config.reference), dtype=frozen_dtype(config.dtype))
    return AnswerScorer(other, config.temperature)


def _referenced(
    pairs: Sequence[EncodedPair], scorer: AnswerScorer | None, config: PreferenceOptimization, context: StageContext,
    part: str,
) -> Referenced:  # fmt: skip
    key = (context.seed, context.name, part) if config.loss.has_kl else None
    return referenced(
        pairs, scorer, micro_batch_size(config), config.max_length, key, lambda work: context.parts(f"{part}/{work}")
    )


def _measure(
    policy: Any, pairs: Sequence[EncodedPair], data: Referenced, groups: Sequence[str], config: PreferenceOptimization,
    context: StageContext,
) -> dict:  # fmt: skip
    scored = AnswerScorer(policy, config.temperature).of_items(data.items, micro_batch_size(config), config.max_length)
    lengths = np.array([(pair.chosen_length, pair.rejected_length) for pair in pairs])
    chosen, rejected = (
        config.loss.rewards(Answers(scored[:, side], data.log_probs[:, side], lengths[:, side])) for side in (0, 1)
    )
    return figures_of_pairs(chosen, rejected, pairs, groups, generator(context.seed, context.name, "calibration"))
