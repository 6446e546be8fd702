"""Best of n as a stage: the answers that the reward likes best, as sampled, ready to be tuned on."""

import numpy as np
import pytest
from policy_fixture import EvenIds, world_model
from stage_fixture import make_context, read_jsonl, stage_config

from gemma_keras import GemmaCausalLM
from gemma_keras.text.chat import encode_prompt
from pipelines.data.columns import Prompt
from pipelines.data.contents import SeenPrompts, prompt_hashes
from pipelines.data.encoding import encode_instructions
from pipelines.data.examples import load_examples
from pipelines.host.errors import DataError
from pipelines.sampling.prompts import encode_prompts
from pipelines.sampling.rollout import Rollout, Sampling
from pipelines.stages.best_of_n import run as best_of_n
from pipelines.tasks import task

pytestmark = pytest.mark.once

SIZE, SAMPLES = 10, 4
DATA = {"task": "small_world", "split": "rl", "size": SIZE}


@pytest.fixture(scope="module")
def sft(tmp_path_factory):
    return world_model(tmp_path_factory.mktemp("inputs") / "sft", scale=4.0)


def choose(folder, sft, patch, finished=None, **options):
    """The stage under a reward that is worked out by hand below; `finished` says which samples came to an end."""
    patch.setattr(best_of_n, "make_rater", lambda *arguments: EvenIds())
    sample = Sampling.sample

    def marked(self, *arguments, **named):
        rollout = sample(self, *arguments, **named)
        rollout.finished[:] = finished(len(rollout))
        return rollout

    if finished is not None:
        patch.setattr(Sampling, "sample", marked)
    context = make_context(folder, "best", inputs={"sft": sft, "reward": sft})
    settings = {"from": "sft", "reward": "reward", "data": DATA, "samples_per_prompt": SAMPLES, "max_new_tokens": 6,
                "max_length": 96, "batch_size": 8, "temperature": 0.7, "gold": "task", **options}  # fmt: skip
    return best_of_n.run(stage_config("best_of_n", **settings), context), context


@pytest.fixture(scope="module")
def chosen(tmp_path_factory, sft):
    with pytest.MonkeyPatch.context() as patch:
        return choose(tmp_path_factory.mktemp("best"), sft, patch, lambda n: np.arange(n) % 16 < 12)


def test_the_best_of_each_prompt_is_kept_as_it_was_sampled(chosen, sft):
    final, context = chosen
    rows = read_jsonl(context.output / "demonstrations.jsonl")
    model = GemmaCausalLM.from_preset(sft / "model")
    examples = context.examples(stage_config("best_of_n", reward="reward", data=DATA, **{"from": "sft"}).data, "prompt")
    prompts = encode_prompts(model.tokenizer, examples, 96, 6)
    rollout = Sampling(model, 6, 0.7, 8, context.seed, "best").sample(prompts, range(SIZE), SAMPLES)
    expected = []
    for prompt in range(SIZE):
        group = [rollout.response_list(prompt * SAMPLES + i) for i in range(SAMPLES)]
        share = [np.mean([token % 2 == 0 for token in ids]) for ids in group]
        best = max(range(SAMPLES), key=lambda i: (share[i], i))
        # Every fourth prompt's samples were marked as cut off.
        if prompt % 4 < 3:
            expected.append((examples[prompt].prompt, group[best], pytest.approx(share[best])))
    assert [(row["prompt"], row["completion_ids"], row["reward"]) for row in rows] == expected
    assert all(row["prompt_ids"] == encode_prompt(model.tokenizer, row["prompt"]) for row in rows)
    assert final["demonstrations"] == len(rows) == 8 and final["unfinished"] == 2
    assert final["responses"] == SIZE * SAMPLES and final["tokens"] == rollout.lengths.sum()


def rollout_with(answers):
    """Finished answers by their ids, as `chosen_rows` reads them."""
    ids = np.zeros((len(answers), max(map(len, answers))), np.int32)
    for row, answer in enumerate(answers):
        ids[row, : len(answer)] = answer
    none = np.zeros((len(answers), 1), np.int32)
    return Rollout(none[:, 0], none, none > 0, ids, ids > 0, ids[:, 0] > 0, [""] * len(answers), none)


def test_the_best_few_are_kept_equal_answers_once_and_none_below_the_least_reward():
    rewards = np.array([[0.2, 0.9, 0.9, 0.5], [0.1, 0.3, 0.2, 0.3]])
    rollout = rollout_with([[5], [6], [7], [8], [5, 6], [9], [7], [9]])
    assert best_of_n.chosen_rows(rewards, rollout, 1, None) == [2, 7]
    assert best_of_n.chosen_rows(rewards, rollout, 3, None) == [2, 1, 3, 7, 6, 4]
    assert best_of_n.chosen_rows(rewards, rollout, 3, 0.3) == [2, 1, 3, 7]
    assert best_of_n.chosen_rows(rewards, rollout, 1, 0.95) == []


def test_a_least_reward_that_nothing_reaches_is_said(tmp_path, sft, monkeypatch):
    with pytest.raises(
        DataError, match=r"no answer has a reward of least_reward 2 or more; the highest of 40 is \d\S*\. L"
    ):
        choose(tmp_path, sft, monkeypatch, least_reward=2.0)


def test_more_than_there_are_cannot_be_kept():
    config = stage_config("best_of_n", reward="r", data=DATA, samples_per_prompt=4, keep=5, **{"from": "sft"})
    assert (("keep",), "5 is over samples_per_prompt 4; expected at most that") in list(config.problems())


def test_the_curve_rises_from_the_mean_to_the_maximum(chosen):
    final, context = chosen
    assert [point["n"] for point in final["curve"]] == [1, 2, 4]
    rewards = [point["reward"]["mean"] for point in final["curve"]]
    assert rewards == sorted(rewards) and rewards[0] < rewards[-1]
    assert all(0 <= point["gold"]["mean"] <= 1 and len(point["gold"]["ci95"]) == 2 for point in final["curve"])


def test_tuning_sees_the_sampled_ids(chosen, sft):
    """Not what the texts would be encoded to: a model may spell a word in pieces of its own."""
    _, context = chosen
    rows = read_jsonl(context.output / "demonstrations.jsonl")
    examples = load_examples("best", "instruction", context.base_folder, {"best": context.output})
    tokenizer = GemmaCausalLM.from_preset(sft / "model").tokenizer
    encoded = encode_instructions(tokenizer, examples, 96, "error").examples
    for row, one in zip(rows, encoded, strict=True):
        assert one.token_ids == row["prompt_ids"] + row["completion_ids"]
        assert one.is_target == [False] * len(row["prompt_ids"]) + [True] * len(row["completion_ids"])
    assert [example.content for example in examples] == [row["content_hash"] for row in rows]
    assert {row["content_hash"] for row in rows} <= {
        item.content for item in task("small_world").prompts("rl", SIZE, 11)
    }


def test_the_prompts_are_kept_as_seen(chosen):
    items = task("small_world").prompts("rl", SIZE, 11)
    hashes = [prompt_hashes(Prompt(item.prompt, None, "", item)) for item in items]
    assert SeenPrompts.read(chosen[1].output) == SeenPrompts.of(hashes)


def test_the_model_computes_in_the_dtype_that_is_asked_for(tmp_path, sft, monkeypatch):
    class Enough(Exception):
        pass

    def sampled(model, *arguments):
        assert model.backbone.dtype_policy.name == "map_bfloat16"
        raise Enough

    monkeypatch.setattr(best_of_n, "_sample", sampled)
    with pytest.raises(Enough):
        choose(tmp_path, sft, monkeypatch, dtype="mixed_bfloat16")


def test_answers_that_were_all_cut_off_are_no_demonstrations(tmp_path, sft):
    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(DataError, match="none of 10 chosen answers came to an end"),
    ):
        choose(tmp_path, sft, patch, lambda n: np.zeros(n, bool))
