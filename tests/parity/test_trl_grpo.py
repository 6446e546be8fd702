"""The same weights and the same rollouts through TRL's GRPO trainer: advantages, losses, gradients and clipped shares
agree for GRPO, DAPO, Dr. GRPO and GSPO, in a first update and where the policy has moved.

By design TRL differs in this: it knows the KL in the loss alone, which is `kl_in: loss` here, while the default here
charges it to the rewards before they are normalized; by default it multiplies k3 by the ratio, which changes the KL's
gradient even where every ratio is 1 (`use_bias_correction_kl`), and here k3 is as in the papers; and its metric `kl` is
k3, here k1.
"""

import os

import numpy as np
import pytest
from policy_fixture import prompts_of
from stage_fixture import stage_config
from trl_comparison import (
    SETTINGS,
    compare_gradients,
    gradients_of,
    kept_gradients,
    norm_of,
    reward_of_ids,
    twenty_steps,
)

from gemma_keras import GemmaCausalLM
from pipelines.algorithms.length_penalties import soft_overlong_penalty
from pipelines.sampling.rollout import ResponseScorer, Sampling
from pipelines.stages.policy_optimization.methods.base import Scored
from pipelines.stages.policy_optimization.methods.registry import method_of
from pipelines.stages.policy_optimization.updates import update_batches
from pipelines.training.loop import Trainer
from pipelines.training.optimizers import OptimizerSettings

pytestmark = pytest.mark.skipif(os.environ["KERAS_BACKEND"] != "torch", reason="TRL runs on PyTorch")
PROMPTS = [[2, 90, 91, 92, 93], [2, 100, 101]]
TEMPERATURE, KL_WEIGHT, K, MOST = 0.7, 0.05, 3, 6
LOW, HIGH = 0.2, 0.3
VARIANTS = {
    "grpo": ({"aggregation": "responses"}, {"loss_type": "grpo"}),
    "dapo": ({"clip_range_high": HIGH}, {"loss_type": "dapo", "epsilon_high": HIGH}),
    "dr_grpo": (
        {"aggregation": "constant", "standard_deviation": False}, {"loss_type": "dr_grpo", "scale_rewards": "none"}
    ),
    "gspo": (
        {"aggregation": "responses", "ratio": "sequence"},
        {"loss_type": "grpo", "importance_sampling_level": "sequence"},
    ),
}  # fmt: skip
PLAIN = {"importance_sampling_level": "token", "scale_rewards": "group", "epsilon_low": LOW, "epsilon_high": LOW}


def config_of(inner_updates=1, **options):
    return stage_config(
        "policy_optimization", reward="exact_answer", data={"task": "small_world", "split": "rl", "size": 1},
        algorithm={"name": "grpo", **options}, kl_weight=KL_WEIGHT, samples_per_prompt=K, prompts_per_step=2,
        max_new_tokens=MOST, temperature=TEMPERATURE, clip_range=LOW, inner_updates=inner_updates,
    )  # fmt: skip


@pytest.fixture(scope="module")
def sampled(folders):
    """A policy, a scored rollout of it, and log-probabilities of a policy that lies as far away as some updates."""
    policy, reference = (GemmaCausalLM.from_preset(folders[name]) for name in ("policy", "reference"))
    rollout = Sampling(policy, MOST, TEMPERATURE, 6, seed=284, stage="policy").sample(prompts_of(PROMPTS), [0, 1], K)
    old, reference_log_probs = (ResponseScorer(model, TEMPERATURE, 4)(rollout)[0] for model in (policy, reference))
    rewards = np.array([reward_of_ids(rollout.response_list(row)) for row in range(len(rollout))])
    noise = np.random.default_rng(2).normal(0, 0.3, old.shape).astype(np.float32)
    moved = np.where(rollout.response_mask, old + noise, np.float32(0))
    return (
        policy,
        Scored(rollout, rewards, old, reference_log_probs, (old - reference_log_probs).sum(axis=1), KL_WEIGHT),
        moved,
    )


def ours(sampled, moved, **options):
    """Metrics, advantages, and gradients by name of one update, in micro-batches of four responses and two."""
    policy, scored, _ = sampled
    config = config_of(1 if moved is None else 2, **options)
    method = method_of(config.algorithm)
    settings = OptimizerSettings(learning_rate=1e-3, clip_norm=0.0, **SETTINGS)
    trainer = Trainer(
        policy, method.loss(config), settings, 1, count_units=method.count_units, summarize=method.figures
    )
    # In place of the optimizer: the policy stays where it is.
    trainer._apply = lambda found, scale, clip_norm: scale * norm_of(dict(enumerate(x.detach().numpy() for x in found)))
    gradients = kept_gradients(trainer)
    arrays = {
        "old_log_probs": scored.old_log_probs if moved is None else moved,
        **method.batch_arrays(scored, config),
    }
    metrics = trainer.update(list(update_batches(scored.rollout, arrays, 4)))
    return metrics, arrays["advantages"], gradients(policy.backbone.named_variables())


@pytest.fixture(scope="module")
def theirs(sampled, folders, tmp_path_factory):
    """A function of a variant: TRL's advantages, loss, gradients and metrics on the same ids."""
    import torch
    import transformers
    import trl
    from datasets import Dataset

    rollout = sampled[1].rollout
    arguments = trl.GRPOConfig(
        output_dir=str(tmp_path_factory.mktemp("trl")), per_device_train_batch_size=6, num_generations=K,
        max_completion_length=MOST, beta=KL_WEIGHT, temperature=TEMPERATURE, epsilon=LOW, bf16=False, fp16=False,
        use_cpu=True, report_to=[], gradient_checkpointing=False, disable_dropout=True, steps_per_generation=1,
        num_iterations=1, use_bias_correction_kl=False,
    )  # fmt: skip
    load = transformers.AutoModelForCausalLM.from_pretrained
    trainer = trl.GRPOTrainer(
        model=load(folders["policy"], dtype=torch.float32),
        reward_funcs=lambda prompts, completions, completion_ids, **kwargs: [reward_of_ids(x) for x in completion_ids],
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": ["a", "b"]}),
        processing_class=transformers.AutoTokenizer.from_pretrained(folders["policy"]),
    )
    trainer.ref_model.load_state_dict(load(folders["reference"], dtype=torch.float32).state_dict())
    rows = range(len(rollout))
    prompts, responses = ([read(row) for row in rows] for read in (rollout.prompt_list, rollout.response_list))
    trainer._generate = lambda _: (prompts, responses, None, rollout.texts, None, {}, None, [])
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()

    def prepared(moved, **changes):
        for name, value in {**PLAIN, **changes}.items():
            setattr(trainer, name, value)
        trainer.model.zero_grad()
        scored = trainer._generate_and_score_completions([{"prompt": "a"}] * K + [{"prompt": "b"}] * K)
        if moved is not None:
            scored["old_per_token_logps"] = torch.tensor(moved)
        return scored

    def of(moved, **changes):
        scored = prepared(moved, **changes)
        loss = trainer.compute_loss(trainer.model, scored)
        loss.backward()
        metrics = {name: values[-1] for name, values in trainer._metrics["train"].items()}
        return scored["advantages"].numpy(), loss.item(), gradients_of(trainer.model), metrics

    of.trainer, of.prepared = trainer, prepared
    return of


def test_some_responses_end_and_some_are_cut(sampled):
    _, scored, moved = sampled
    rollout = scored.rollout
    assert rollout.lengths.tolist() == [3, 6, 2, 4, 6, 1] and rollout.finished.sum() == 4
    ratios = np.exp(scored.old_log_probs - moved)[rollout.response_mask]
    assert (ratios < 1 - LOW).any() and (ratios > 1 + HIGH).any()


@pytest.mark.parametrize("has_moved", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_advantages_loss_gradient_and_clipped_share_are_those_of_trl(sampled, theirs, variant, has_moved):
    options, changes = VARIANTS[variant]
    moved = sampled[2] if has_moved else None
    metrics, advantages, gradients = ours(sampled, moved, kl_in="loss", **options)
    wanted_advantages, loss, wanted, their_metrics = theirs(moved, **changes)
    assert np.abs(advantages).max() > 0.5 and advantages.min() < -0.5
    assert np.abs(advantages - wanted_advantages).max() < 1e-5
    assert metrics["loss"] == pytest.approx(loss, abs=1e-5)
    norm = norm_of(wanted)
    assert norm > 1e-2 and metrics["grad_norm"] == pytest.approx(norm, rel=1e-5)
    compare_gradients(gradients, wanted)
    for name, their_name in (("clip_ratio", "region_mean"), ("clip_ratio/low_mean", "low_mean"),
                             ("clip_ratio/high_mean", "high_mean")):  # fmt: skip
        assert metrics.get(name, 0.0) == pytest.approx(their_metrics[f"clip_ratio/{their_name}"], abs=1e-6)
    assert not has_moved or metrics["clip_ratio"] > 0


@pytest.mark.parametrize("variant", VARIANTS)
def test_twenty_steps_on_a_rollout_end_where_those_of_trl_end(sampled, theirs, folders, variant):
    options, changes = VARIANTS[variant]
    scored, config = sampled[1], config_of(20, kl_in="loss", **options)
    policy, method = GemmaCausalLM.from_preset(folders["policy"]), method_of(config.algorithm)
    settings = OptimizerSettings(learning_rate=1e-4, clip_norm=1e9, **SETTINGS)
    trainer = Trainer(
        policy, method.loss(config), settings, 20, count_units=method.count_units, summarize=method.figures
    )
    arrays = {"old_log_probs": scored.old_log_probs, **method.batch_arrays(scored, config)}
    clipped = [trainer.update(list(update_batches(scored.rollout, arrays, 4)))["clip_ratio"] for _ in range(20)]
    model = theirs.trainer.model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batch = theirs.prepared(scored.old_log_probs, **changes)
    start, end = twenty_steps(model, lambda: theirs.trainer.compute_loss(model, batch))
    model.load_state_dict(before)
    assert clipped[0] == 0 < max(clipped) and (end - start).abs().max() > 1e-3
    found = policy.backbone.named_variables()["embedding"].value.detach()
    assert (found - end).abs().max() < 1e-4


def test_by_default_the_kl_is_charged_before_rewards_are_normalized(sampled, theirs):
    scored = sampled[1]
    _, advantages, _ = ours(sampled, None)
    charged = (scored.rewards - KL_WEIGHT * scored.kl).reshape(2, K)
    expected = (charged - charged.mean(axis=1, keepdims=True)) / (charged.std(axis=1, ddof=1, keepdims=True) + 1e-4)
    assert np.abs(advantages - expected.reshape(-1)).max() < 1e-5
    assert np.abs(advantages - theirs(None, loss_type="grpo")[0]).max() > 1e-2


def test_the_penalty_for_length_is_that_of_trl():
    from trl.rewards import get_soft_overlong_punishment

    lengths = [1, 15, 16, 19, 20]
    expected = get_soft_overlong_punishment(20, 5)(completion_ids=[[0] * length for length in lengths])
    assert np.abs(soft_overlong_penalty(lengths, 20, 5) + expected).max() < 1e-12
