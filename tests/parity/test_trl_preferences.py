"""The same weights and the same ragged pairs, stopped and cut answers among them, through TRL's DPO, KTO, CPO and
ORPO trainers: losses, rewards and gradients agree, and so do the weights after twenty steps.

By design TRL differs in this: its ORPO tunes on the prompt as well (`test_the_odds_ratio_is_that_of_trl` leaves that
term out of both), and its KTO takes two mismatched answers a pair where ours takes one; here both get one number.
"""

import os

import numpy as np
import pytest
from policy_fixture import prompts_of
from trl_comparison import SETTINGS, compare_gradients, gradients_of, kept_gradients, twenty_steps

from gemma_keras import GemmaCausalLM
from pipelines.data.encoding import EncodedPair
from pipelines.sampling.rollout import Sampling
from pipelines.stages.preference_optimization.answer_batches import answer_batches, sides
from pipelines.stages.preference_optimization.learning import count_pairs, pair_loss, with_constants
from pipelines.stages.preference_optimization.losses.registry import LOSSES
from pipelines.stages.preference_optimization.scoring import AnswerScorer
from pipelines.training.loop import Trainer
from pipelines.training.optimizers import OptimizerSettings

pytestmark = pytest.mark.skipif(os.environ["KERAS_BACKEND"] != "torch", reason="TRL runs on PyTorch")
PROMPTS = [[2, 90, 91, 92, 93], [2, 100, 101]]


@pytest.fixture(scope="module")
def pairs(folders):
    policy = GemmaCausalLM.from_preset(folders["policy"])
    rollout = Sampling(policy, 6, 0.7, 6, seed=284, stage="policy").sample(prompts_of(PROMPTS), [0, 1], 3)
    assert rollout.lengths.tolist() == [3, 6, 2, 4, 6, 1] and rollout.finished.sum() == 4
    found = []
    for first, second in ((0, 1), (4, 3), (2, 0)):
        prompt, answers = rollout.prompt_list(first), [rollout.response_list(row) for row in (first, second)]
        found.append(EncodedPair(prompt, prompt + answers[0], prompt + answers[1], *map(len, answers)))
    return found


def sequence(pair, side):
    return getattr(pair, f"{side}_ids"), getattr(pair, f"{side}_length")


def ours(folders, pairs, loss, kls=(0.0,), rate=1e-3):
    """The stage's own updates, one for each KL: metrics of the first, its gradients, the weights at the end."""
    policy, reference = (GemmaCausalLM.from_preset(folders[name]) for name in ("policy", "reference"))
    items = list(map(sides, pairs))
    log_probs = AnswerScorer(reference, 1.0).of_items(items, 2, 16)
    trainer = Trainer(
        policy, pair_loss(loss, 1.0), OptimizerSettings(learning_rate=rate, clip_norm=1e9, **SETTINGS), len(kls),
        count_units=count_pairs,
    )  # fmt: skip
    gradients = kept_gradients(trainer)
    found = []
    for kl in kls:
        # Micro-batches of two pairs and one: what TRL is given at once.
        batches = next(answer_batches(items, [[np.array([0, 1]), np.array([2])]], 2, [16], policy.config, False)())
        found.append(trainer.update(with_constants(list(batches), log_probs, kl)))
    named = policy.backbone.named_variables()
    return found[0], gradients(named), named


def tensors(rows):
    """Ids padded on the right, where they are real, where an answer stands."""
    import torch

    width = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([list(ids) + [0] * (width - len(ids)) for ids, _ in rows])
    real = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in rows])
    answer = torch.tensor([[0] * (len(i) - n) + [1] * n + [0] * (width - len(i)) for i, n in rows])
    return ids, real, answer


def trl_trainer(kind, config, folders, folder, columns, **options):
    import torch
    import transformers
    import trl
    from datasets import Dataset

    load = transformers.AutoModelForCausalLM.from_pretrained
    arguments = config(
        output_dir=str(folder), use_cpu=True, bf16=False, fp16=False, report_to=[], gradient_checkpointing=False,
        disable_dropout=True, **options,
    )  # fmt: skip
    trainer = kind(
        model=load(folders["policy"], dtype=torch.float32),
        args=arguments,
        train_dataset=Dataset.from_dict(columns),
        processing_class=transformers.AutoTokenizer.from_pretrained(folders["policy"]),
    )
    if getattr(trainer, "ref_model", None) is not None:
        # Its own copy, patched for the fused head, takes other weights.
        trainer.ref_model.load_state_dict(load(folders["reference"], dtype=torch.float32).state_dict())
    assert trl.__version__.startswith("1.16")
    trainer.model.train()
    return trainer


PREFERENCES = {"prompt": ["a", "b"], "chosen": ["c", "d"], "rejected": ["e", "f"]}


def compare(found, expected_loss, model):
    """Loss and gradients of ours with those that stand in a model of transformers'."""
    metrics, gradients, _ = found
    assert metrics["loss"] == pytest.approx(expected_loss, abs=1e-5)
    expected = gradients_of(model)
    assert np.abs(expected["model.embed_tokens.weight"]).max() > 1e-4
    compare_gradients(gradients, expected)


DPO_CASES = {
    "dpo": ({}, {"loss_type": ["sigmoid"]}),
    "robust": ({"label_noise": 0.2}, {"loss_type": ["robust"], "label_smoothing": 0.2}),
    "ipo": ({}, {"loss_type": ["ipo"]}),
    "dpo, length-normalized": ({"length_normalized": True}, {"loss_type": ["sigmoid_norm"]}),
    "dpo and tuning": ({"nll_weight": 0.7}, {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.7]}),
}


@pytest.mark.parametrize("case", list(DPO_CASES))
def test_dpo_and_its_kin_are_those_of_trl(folders, pairs, tmp_path, case):
    import trl

    mine, theirs = DPO_CASES[case]
    name = case.split(",")[0].split()[0]
    found = ours(folders, pairs, LOSSES[name](name=name, beta=0.3, **mine))
    trainer = trl_trainer(trl.DPOTrainer, trl.DPOConfig, folders, tmp_path, PREFERENCES, beta=0.3, **theirs)
    rows = [sequence(pair, side) for side in ("chosen", "rejected") for pair in pairs]
    ids, real, answer = tensors(rows)
    batch = {"input_ids": ids, "attention_mask": real, "completion_mask": answer}
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    compare(found, loss.item(), trainer.model)
    logged = trainer._metrics["train"]
    for key in ("logps/chosen", "logps/rejected"):
        assert found[0][key] == pytest.approx(logged[key][0], abs=1e-4), key
    if name == "dpo" and not mine.get("length_normalized"):
        for key in ("rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies"):
            assert found[0][key] == pytest.approx(logged[key][0], abs=1e-4), key


def kto_trainer(folders, pairs, folder):
    """TRL's trainer, and a function of it: its loss of the pairs as they are now."""
    import torch
    import trl

    foreign = [
        (pair.prompt_ids + sequence(other, side)[0][-sequence(other, side)[1] :], sequence(other, side)[1])
        for side in ("chosen", "rejected")
        for pair, other in zip(pairs, pairs[1:] + pairs[:1], strict=True)  # the third pair's prompt is the first's
    ]
    columns = {"prompt": ["a", "b"], "completion": ["c", "d"], "label": [True, False]}
    trainer = trl_trainer(
        trl.KTOTrainer, trl.KTOConfig, folders, folder, columns, beta=0.3, desirable_weight=1.5,
        undesirable_weight=0.8, per_device_train_batch_size=2,
    )  # fmt: skip
    rows = [sequence(pair, side) for side in ("chosen", "rejected") for pair in pairs]
    batch = dict(zip(("input_ids", "attention_mask", "completion_mask"), tensors(rows), strict=True))
    batch |= dict(zip(("KL_input_ids", "KL_attention_mask", "KL_completion_mask"), tensors(foreign), strict=True))
    batch["label"] = torch.tensor([True] * 3 + [False] * 3)
    return trainer, lambda: trainer.compute_loss(trainer.model, dict(batch))


KTO = {"beta": 0.3, "desirable_weight": 1.5, "undesirable_weight": 0.8}


def test_kto_is_that_of_trl(folders, pairs, tmp_path):
    trainer, their_loss = kto_trainer(folders, pairs, tmp_path)
    loss = their_loss()
    loss.backward()
    (kl,) = trainer._metrics["train"]["kl"]
    assert kl > 0.05
    compare(ours(folders, pairs, LOSSES["kto"](name="kto", **KTO), [kl]), loss.item(), trainer.model)


def of_sides(pairs):
    """A batch as TRL's older trainers take it."""
    import torch

    found = {}
    for side in ("chosen", "rejected"):
        ids, real, answer = tensors([sequence(pair, side) for pair in pairs])
        labels = torch.where(answer == 1, ids, -100)
        found |= {f"{side}_input_ids": ids, f"{side}_attention_mask": real, f"{side}_labels": labels}
    return found


@pytest.mark.parametrize("name", ["cpo", "simpo"])
def test_cpo_and_simpo_are_those_of_trl(folders, pairs, tmp_path, name):
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    mine = {"label_smoothing": 0.1, **({"gamma": 0.6} if name == "simpo" else {"nll_weight": 0.8})}
    theirs = (
        {"loss_type": "simpo", "simpo_gamma": 0.6, "cpo_alpha": 0.0}
        if name == "simpo"
        else {"loss_type": "sigmoid", "cpo_alpha": 0.8}
    )
    trainer = trl_trainer(
        CPOTrainer, CPOConfig, folders, tmp_path, PREFERENCES, beta=0.9, label_smoothing=0.1, **theirs
    )
    loss, logged = trainer.get_batch_loss_metrics(trainer.model, of_sides(pairs))
    loss.backward()
    found = ours(folders, pairs, LOSSES[name](name=name, beta=0.9, **mine))
    compare(found, loss.item(), trainer.model)
    assert found[0]["rewards/margins"] == pytest.approx(float(logged["rewards/margins"]), abs=1e-4)


def test_the_odds_ratio_is_that_of_trl(folders, pairs, tmp_path):
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    trainer = trl_trainer(ORPOTrainer, ORPOConfig, folders, tmp_path, PREFERENCES, beta=0.4)
    chosen, rejected = trainer.concatenated_forward(trainer.model, of_sides(pairs))[:2]
    loss = -trainer.odds_ratio_loss(chosen, rejected)[0].mean()
    loss.backward()
    compare(ours(folders, pairs, LOSSES["orpo"](name="orpo", beta=0.4, nll_weight=0.0)), loss.item(), trainer.model)


def their_losses(name, folders, folder, pairs):
    """TRL's trainer of a loss, and its loss of the pairs as they are now."""
    if name == "kto":
        return kto_trainer(folders, pairs, folder)
    if name in ("cpo", "simpo"):
        from trl.experimental.cpo import CPOConfig, CPOTrainer

        kind = {"loss_type": "sigmoid", "cpo_alpha": 1.0}
        kind = kind if name == "cpo" else {"loss_type": "simpo", "simpo_gamma": 1.0, "cpo_alpha": 0.0}
        trainer = trl_trainer(CPOTrainer, CPOConfig, folders, folder, PREFERENCES, beta=0.3, **kind)
        return trainer, lambda: trainer.get_batch_loss_metrics(trainer.model, of_sides(pairs))[0]
    if name == "orpo":
        from trl.experimental.orpo import ORPOConfig, ORPOTrainer

        trainer = trl_trainer(ORPOTrainer, ORPOConfig, folders, folder, PREFERENCES, beta=0.3)

        def odds():
            return -trainer.odds_ratio_loss(*trainer.concatenated_forward(trainer.model, of_sides(pairs))[:2])[0].mean()

        return trainer, odds
    import trl

    kind = {"loss_type": [{"dpo": "sigmoid"}.get(name, name)], "label_smoothing": 0.1 if name == "robust" else 0.0}
    trainer = trl_trainer(trl.DPOTrainer, trl.DPOConfig, folders, folder, PREFERENCES, beta=0.3, **kind)
    ids, real, answer = tensors([sequence(pair, side) for side in ("chosen", "rejected") for pair in pairs])
    batch = {"input_ids": ids, "attention_mask": real, "completion_mask": answer}
    return trainer, lambda: trainer.compute_loss(trainer.model, dict(batch))


@pytest.mark.parametrize("name", ["dpo", "ipo", "robust", "simpo", "orpo", "cpo", "kto"])
def test_twenty_steps_end_where_those_of_trl_end(folders, pairs, tmp_path, name):
    trainer, loss = their_losses(name, folders, tmp_path, pairs)
    start, end = twenty_steps(trainer.model, loss)
    kls = trainer._metrics["train"]["kl"] if name == "kto" else [0.0] * 20
    assert len(kls) == 20 and (name != "kto" or max(kls) > 1.05 * min(kls) > 0.05)
    options = {"orpo": {"nll_weight": 0.0}, "kto": KTO}.get(name, {})
    *_, weights = ours(folders, pairs, LOSSES[name](**{"name": name, "beta": 0.3, **options}), kls, rate=1e-4)
    assert (end - start).abs().max() > 1e-3
    assert np.abs(np.asarray(weights["embedding"].value.detach()) - end.numpy()).max() < 1e-4
