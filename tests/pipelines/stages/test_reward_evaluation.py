"""A reward model by set: every pair against the model's score of either side, one by one."""

import numpy as np
import pytest
from policy_fixture import world_model, world_reward_model
from stage_fixture import WORDS, collected_preferences, make_context, stage_config, write_jsonl

from gemma_keras import GemmaRewardModel
from gemma_keras.backends import to_host
from gemma_keras.text.chat import encode_prompt, encode_response
from pipelines.data.columns import Prompt
from pipelines.data.contents import SeenPrompts, prompt_hashes
from pipelines.host.errors import ConfigError
from pipelines.measures.intervals import score_interval
from pipelines.stages.reward_evaluation import run as reward_evaluation

pytestmark = pytest.mark.once

MAX_LENGTH, WIDTH = 64, 128


def text_pairs(count, prompts, seed):
    """Rows over so many prompts, answers of several lengths."""
    random = np.random.default_rng(seed)

    def words():
        return " ".join(random.choice(WORDS, random.integers(1, 4)))

    return [
        {"prompt": f"say {WORDS[i % prompts]}", "chosen": words(), "rejected": words() + " sun"} for i in range(count)
    ]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    reward = world_reward_model(folder / "reward", seed=6)
    chat = text_pairs(12, 4, 0)
    too_long = {"prompt": "say it", "chosen": "red " * 80, "rejected": "no"}
    sets = {"chat": chat, "refusals": [*text_pairs(5, 5, 1), too_long], "borderline": text_pairs(9, 3, 2)}
    # As a stage would have written: what the reward model learned from.
    learned = [Prompt(f"say {word}", None, "") for word in WORDS[2:4]]
    SeenPrompts.of([prompt_hashes(one) for one in learned]).write(reward / "model")
    inputs = {"reward": reward, "collected": collected_preferences(folder / "collected")}
    config = stage_config(
        "reward_evaluation",
        reward="reward_model:reward",
        max_length=MAX_LENGTH,
        micro_batch_size=5,
        sets=[
            {"name": name, "data": {"path": write_jsonl(folder / f"{name}.jsonl", rows)},
             **({} if name == "chat" else {"section": "safety"})}
            for name, rows in sets.items()
        ]
        + [{"name": "collected", "data": "collected"}],
    )  # fmt: skip
    context = make_context(folder, "bench", inputs=inputs)
    return reward_evaluation.run(config, context), context, sets


@pytest.fixture(scope="module")
def margins(finished):
    """By set, chosen minus rejected of each pair that is not too long, a row at a time."""
    _, context, sets = finished
    model = GemmaRewardModel.from_preset(context.inputs["reward"] / "model")

    def score(ids):
        row = np.array([ids + [0] * (WIDTH - len(ids))], np.int32)
        return float(to_host(model({"token_ids": row, "padding_mask": np.arange(WIDTH)[None] < len(ids)}))[0])

    def margin(row):
        prompt = encode_prompt(model.tokenizer, row["prompt"])
        return np.subtract(
            *(score(prompt + encode_response(model.tokenizer, row[side])) for side in ("chosen", "rejected"))
        )

    found = {name: np.array([margin(row) for row in rows if len(row["chosen"]) < 99]) for name, rows in sets.items()}
    assert all(np.abs(values).min() > 1e-4 for values in found.values())
    return found


def test_a_set_is_measured_pair_by_pair(finished, margins):
    final, _, sets = finished
    assert [one["name"] for one in final["sets"]] == [*sets, "collected"] and final["reward"] == "reward"
    for one in final["sets"][:3]:
        values = margins[one["name"]]
        prompts = [row["prompt"] for row in sets[one["name"]]][: len(values)]
        assert one["pairs"] == len(values) and one["pair_prompts"] == len(set(prompts))
        assert one["accuracy"] == pytest.approx(np.mean(values > 0))
        groups = np.unique(prompts, return_inverse=True)[1]
        assert one["accuracy_ci95"] == pytest.approx(list(score_interval(values > 0, groups=groups)))
        assert one["margin"] == pytest.approx(values.mean(), abs=1e-4)
        assert set(one) >= {"calibration_error", "calibration_error_ci95", "length_correlation"}
    assert [one["dropped_rows"] for one in final["sets"]] == [0, 1, 0, 0]
    assert (final["sets"][3]["pairs"], final["sets"][3]["pair_prompts"]) == (60, 60)


def test_pairs_count_alike_in_a_section_and_sections_in_the_mean(finished, margins):
    final, _, _ = finished
    safety = np.concatenate([margins["refusals"], margins["borderline"]]) > 0
    collected = final["sets"][3]["accuracy"]
    assert [(one["section"], one["pairs"]) for one in final["sections"]] == [
        ("chat", 12), ("safety", 14), ("collected", 60),
    ]  # fmt: skip
    accuracies = [np.mean(margins["chat"] > 0), safety.mean(), collected]
    assert [one["accuracy"] for one in final["sections"]] == pytest.approx(accuracies)
    assert final["mean_accuracy"] == pytest.approx(np.mean(accuracies))
    # Prompts that two sets of a section share are one.
    prompts = [f"say {WORDS[i]}" for i in range(5)] + [f"say {WORDS[i % 3]}" for i in range(9)]
    groups = np.unique(prompts, return_inverse=True)[1]
    assert final["sections"][1]["accuracy_ci95"] == pytest.approx(list(score_interval(safety, groups=groups)))


def test_prompts_that_the_model_learned_from_are_counted_and_said(finished):
    final, context, _ = finished
    assert [one["seen_in_training"] for one in final["sets"]] == [2, 2, 1, 0]
    assert context.warnings == ["'reward' learned from up to 2 prompts of a set; see seen_in_training"]


def test_a_language_model_is_refused(tmp_path):
    inputs = {"sft": world_model(tmp_path / "sft")}
    data = {"path": write_jsonl(tmp_path / "rows.jsonl", text_pairs(3, 3, 0))}
    config = stage_config("reward_evaluation", reward="sft", sets=[{"name": "one", "data": data}])
    with pytest.raises(
        ConfigError, match="'sft' holds no reward model .* Name a stage that trained one, or its folder"
    ):
        reward_evaluation.run(config, make_context(tmp_path, "bench", inputs=inputs))
