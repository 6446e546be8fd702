"""The same weights and the same rollouts through TRL's RLOO and SFT trainers: rewards, advantages, losses and gradients
agree."""

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
from gemma_keras.text.chat import encode_pair
from pipelines.data.batches import make_batch
from pipelines.sampling.reference_policy import ReferencePolicy
from pipelines.sampling.rollout import ResponseScorer, Sampling
from pipelines.scoring.raters import Rater, Scores
from pipelines.stages.policy_optimization import run as policy_optimization
from pipelines.stages.policy_optimization.drawing import Drawing, Drawn
from pipelines.stages.policy_optimization.methods.registry import METHODS
from pipelines.stages.policy_optimization.updates import (
    count_responses,
    policy_loss,
    ratio_figures,
    update_batches,
)
from pipelines.tasks import task
from pipelines.training.language_model import next_token_loss_sum
from pipelines.training.loop import Trainer
from pipelines.training.optimizers import OptimizerSettings

pytestmark = pytest.mark.skipif(os.environ["KERAS_BACKEND"] != "torch", reason="TRL runs on PyTorch")
PROMPTS = [[2, 90, 91, 92, 93], [2, 100, 101]]
TEMPERATURE, KL_WEIGHT, K = 0.7, 0.05, 3
OPTIONS = {**SETTINGS, "learning_rate": 1e-3, "clip_norm": 0.0}


class IdsRater(Rater):
    """The reward that both sides use: a function of the sampled ids."""

    name = source = "ids"

    def score(self, prompts, rollout):
        return Scores(np.array([reward_of_ids(rollout.response_list(row)) for row in range(len(rollout))]), {})


@pytest.fixture(scope="module")
def ours(folders):
    """The stage's own update on one rollout: metrics, advantages and the gradients that the optimizer was handed."""
    policy, reference = (GemmaCausalLM.from_preset(folders[name]) for name in ("policy", "reference"))
    prompts = prompts_of(PROMPTS)
    rollout = Sampling(policy, 6, TEMPERATURE, 6, seed=284, stage="policy").sample(prompts, [0, 1], K)
    settings = OptimizerSettings(**OPTIONS)
    trainer = Trainer(
        policy, policy_loss(TEMPERATURE, 0.2), settings, 1, count_units=count_responses, summarize=ratio_figures
    )
    gradients, advantages = kept_gradients(trainer), []
    method = METHODS["rloo"]()
    judge = method.advantages
    method.advantages = lambda rewards: advantages.append(judge(rewards)) or advantages[-1]
    players = policy_optimization.Players(
        Drawing(None, prompts, IdsRater(), method, K),
        ResponseScorer(policy, TEMPERATURE, 4),
        ReferencePolicy(reference),
        ResponseScorer(reference, TEMPERATURE, 4),
        method,
        trainer,
        KL_WEIGHT,
    )
    drawn = Drawn(rollout, IdsRater().score([], rollout), np.ones(len(rollout), bool), {})
    config = stage_config(
        "policy_optimization", reward="exact_answer", data={"task": "small_world", "split": "rl", "size": 1},
        kl_weight=KL_WEIGHT, samples_per_prompt=K, prompts_per_step=2, micro_batch_size=4, temperature=TEMPERATURE,
    )  # fmt: skip
    metrics = policy_optimization._update(players, drawn, config)
    return rollout, metrics, advantages[0], gradients(policy.backbone.named_variables())


@pytest.fixture(scope="module")
def theirs(ours, folders, tmp_path_factory):
    """TRL's RLOO on the same ids: its trainer, what it made of the rollout, and its loss with gradients."""
    import torch
    import transformers
    import trl
    from datasets import Dataset

    rollout = ours[0]

    def ids_reward(prompts, completions, completion_ids, **kwargs):
        return [reward_of_ids(ids) for ids in completion_ids]

    arguments = trl.RLOOConfig(
        output_dir=str(tmp_path_factory.mktemp("trl")), per_device_train_batch_size=6, num_generations=K,
        max_completion_length=6, beta=KL_WEIGHT, temperature=TEMPERATURE, epsilon=0.2, bf16=False, fp16=False,
        use_cpu=True, report_to=[], gradient_checkpointing=False, disable_dropout=True, steps_per_generation=1,
        num_iterations=1,
    )  # fmt: skip
    load = transformers.AutoModelForCausalLM.from_pretrained
    trainer = trl.RLOOTrainer(
        model=load(folders["policy"], dtype=torch.float32),
        reward_funcs=ids_reward,
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": ["a", "b"]}),
        processing_class=transformers.AutoTokenizer.from_pretrained(folders["policy"]),
    )
    # The trainer's own copy, which it has patched for its fused head, takes other weights: a KL of 0 would show
    # nothing.
    trainer.ref_model.load_state_dict(load(folders["reference"], dtype=torch.float32).state_dict())
    rows = range(len(rollout))
    sampled = [rollout.prompt_list(row) for row in rows], [rollout.response_list(row) for row in rows], rollout.texts
    trainer._generate = lambda prompts: sampled
    trainer.model.train()
    scored = trainer._generate_and_score_completions([{"prompt": "a"}] * K + [{"prompt": "b"}] * K)
    loss = trainer.compute_loss(trainer.model, scored)
    loss.backward()
    return trainer, scored, loss.item(), gradients_of(trainer.model)


def test_some_responses_end_and_some_are_cut(ours, folders):
    rollout = ours[0]
    tokenizer = GemmaCausalLM.from_preset(folders["policy"]).tokenizer
    assert rollout.lengths.tolist() == [3, 6, 2, 4, 6, 1] and rollout.finished.sum() == 4
    last = {rollout.response_list(row)[-1] for row in np.flatnonzero(rollout.finished)}
    assert last == {tokenizer.end_of_turn_id, tokenizer.eos_token_id}


def test_rewards_and_advantages_are_those_of_trl(ours, theirs):
    _, metrics, advantages, _ = ours
    trainer, scored, _, _ = theirs
    assert np.abs(advantages).max() > 0.5
    assert np.abs(advantages - scored["advantages"].numpy()).max() < 1e-5
    for name in ("reward", "reward_std", "kl"):
        assert metrics[name] == pytest.approx(trainer._metrics["train"][name][0], abs=1e-5), name


def test_the_loss_and_its_gradient_are_those_of_trl(ours, theirs):
    _, metrics, _, gradients = ours
    trainer, _, loss, expected = theirs
    assert metrics["policy_loss"] == pytest.approx(loss, abs=1e-5)
    assert metrics["entropy"] == pytest.approx(trainer._metrics["train"]["entropy"][0], abs=1e-5)
    assert metrics["clip_ratio"] == trainer._metrics["train"]["clip_ratio/region_mean"][0] == 0
    assert metrics["grad_norm"] == pytest.approx(norm_of(expected), rel=1e-5)
    compare_gradients(gradients, expected)


def test_twenty_steps_on_a_rollout_end_where_those_of_trl_end(ours, theirs, folders):
    rollout, _, advantages, _ = ours
    their_trainer, scored, *_ = theirs
    policy = GemmaCausalLM.from_preset(folders["policy"])
    settings = OptimizerSettings(**{**OPTIONS, "learning_rate": 1e-4, "clip_norm": 1e9})
    trainer = Trainer(
        policy, policy_loss(TEMPERATURE, 0.2), settings, 20, count_units=count_responses, summarize=ratio_figures
    )
    arrays = {"old_log_probs": ResponseScorer(policy, TEMPERATURE, 4)(rollout)[0], "advantages": advantages}
    clipped = [trainer.update(list(update_batches(rollout, arrays, 4)))["clip_ratio"] for _ in range(20)]
    model = their_trainer.model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    start, end = twenty_steps(model, lambda: their_trainer.compute_loss(model, scored))
    model.load_state_dict(before)
    assert clipped[0] == 0 < max(clipped) and (end - start).abs().max() > 1e-3
    assert (policy.backbone.named_variables()["embedding"].value.detach() - end).abs().max() < 1e-4


def test_the_instruction_tuning_loss_is_that_of_trl_and_transformers(folders, tmp_path):
    import torch
    import transformers
    import trl
    from datasets import Dataset

    model = GemmaCausalLM.from_preset(folders["policy"])
    examples = [
        encode_pair(model.tokenizer, item.prompt, item.demonstration)
        for item in task("small_world").prompts("sft", 5, 0)
    ]
    assert len({len(example.token_ids) for example in examples}) > 1
    settings = OptimizerSettings(**OPTIONS)
    batches = [
        make_batch(part, model.config.pad_token_id, length=96, target_length=32, rows=3)
        for part in (examples[:3], examples[3:])
    ]
    ours = Trainer(model, next_token_loss_sum, settings, 1).evaluate(batches)["eval_loss"]
    rows = {
        "input_ids": [example.token_ids for example in examples],
        "completion_mask": [[int(x) for x in example.is_target] for example in examples],
    }
    trainer = trl.SFTTrainer(
        model=transformers.AutoModelForCausalLM.from_pretrained(folders["policy"], dtype=torch.float32),
        args=trl.SFTConfig(
            output_dir=str(tmp_path), per_device_train_batch_size=5, completion_only_loss=True, bf16=False,
            use_cpu=True, report_to=[], gradient_checkpointing=False,
        ),
        train_dataset=Dataset.from_dict(rows),
        processing_class=transformers.AutoTokenizer.from_pretrained(folders["policy"]),
    )  # fmt: skip
    batch = next(iter(trainer.get_train_dataloader()))
    with torch.no_grad():
        assert ours == pytest.approx(trainer.compute_loss(trainer.model, dict(batch)).item(), abs=1e-5)
        assert ours == pytest.approx(trainer.model(**batch).loss.item(), abs=1e-5)
