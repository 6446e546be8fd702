"""The whole chain on the backend under test: everything a run promises is on disk, finite, opens elsewhere, and repeats
exactly: in another folder, in other processes, and after its runner was killed.

One file, so that one process of the test run makes the chain once for all of them.
"""

import dataclasses
import html.parser
import json
import math
import os
import re
import shutil
import signal
import time

import numpy as np
import pytest

from pipelines.data.layout import MOST_SHAPES

STAGES = ("pretrained", "sft", "preferences", "reward", "policy", "evaluation")
MODEL_FILES = {
    "config.json",
    "model.safetensors",
    "tokenizer.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "seen_prompts.txt",
}
FILES = {
    "pretrained": {"stage.json", "final.json", "files.json", "metrics.jsonl", "model"},
    "sft": {"stage.json", "final.json", "files.json", "metrics.jsonl", "model"},
    "preferences": {
        "stage.json",
        "final.json",
        "files.json",
        "preferences.jsonl",
        "responses.jsonl",
        "seen_prompts.txt",
    },
    "reward": {"stage.json", "final.json", "files.json", "metrics.jsonl", "model"},
    "policy": {"stage.json", "final.json", "files.json", "metrics.jsonl", "samples.jsonl", "model"},
    "evaluation": {"stage.json", "final.json", "files.json", "evaluation.json", "samples.jsonl"},
}
SECTIONS = [
    "chain",
    "losses",
    "reward_model",
    "policy",
    "overoptimization",
    "best_of_n",
    "win_rates",
    "samples",
    "config",
    "versions",
]
# Figures that a run this small does not have.
MAY_BE_NULL = {
    "eval_loss_flatness", "accuracy", "accuracy_ci95", "first_shown_wins", "margin", "rater", "length_correlation",
    "loss", "heldout_first", "heldout_last", "tokens_per_second",
}  # fmt: skip


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_the_run_folder_holds_what_it_promises_and_nothing_half_written(chain):
    assert names(chain.folder) - {".lock"} >= {
        "workflow.yaml",
        "workflow.lock",
        "stages",
        "summary.json",
        "report.html",
    }
    assert names(chain.folder / "stages") == set(STAGES)
    for name, expected in FILES.items():
        assert names(chain.stage(name)) == expected, name
        if "model" in expected:
            assert names(chain.stage(name) / "model") - {"generation_config.json"} == MODEL_FILES, name
            assert ("generation_config.json" in names(chain.stage(name) / "model")) == (name != "reward")
    assert not [path for path in chain.folder.rglob("*") if path.name.endswith((".tmp", ".partial", ".old"))]


def test_the_summary_has_the_promised_keys(chain, backend):
    summary = chain.json("summary.json")
    assert (
        summary["backend"] == backend
        and summary["seed"] == 17
        and {"keras", "numpy", backend} <= set(summary["versions"])
    )
    assert tuple(summary["stages"]) == STAGES
    for stage in summary["stages"].values():
        assert stage["seconds"] > 0 and 0.1 < stage["peak_memory_gib"] < 4 and stage["final"]
        assert stage["programs"] and max(stage["programs"].values()) <= MOST_SHAPES, stage["programs"]
    for name, work in (("pretrained", "training"), ("policy", "training"), ("policy", "sampling")):
        speed = summary["stages"][name]["throughput"]
        assert speed[work]["tokens_per_second"] > 0 and 0 < speed[work]["model_flops_utilization"] < 1
        assert 0 < speed["seconds_to_first_update"] < summary["stages"][name]["seconds"]
    reward_model, policy, evaluation = summary["reward_model"], summary["policy"], summary["evaluation"]
    assert set(reward_model) >= {"stage", "accuracy", "accuracy_ci95", "ceiling", "regret", "regret_ci95", "pairs"}
    assert set(policy) == {"stage", "reward_start", "reward_end", "kl", "kl_sequence", "steps", "reward_source"}
    assert set(evaluation) >= {"judge", "prompts", "win_rate", "tie_rate", "loss_rate", "win_rate_ci95", "gold_parts"}
    assert set(evaluation["difference"]) == {"judge_score", "gold", "gold_parts"}
    assert set(evaluation["gold_parts"]) == {"sft", "policy"}
    for parts in evaluation["gold_parts"].values():
        assert set(parts) == {"right", "refuses", "polite", "brief"}
        assert all(
            set(part) == {"mean", "ci95"} and part["ci95"][0] <= part["mean"] <= part["ci95"][1]
            for part in parts.values()
        )
    assert (policy["steps"], policy["reward_source"]) == (4, "reward_model:reward")
    assert (evaluation["judge"], evaluation["prompts"]) == ("gold", 16)
    assert 0.5 <= reward_model["ceiling"] <= 1 and reward_model["pairs"] >= 8
    pair = evaluation["pairs"][0]
    wins = 1 - pair["tie_rate"] - pair["loss_rate"]
    assert evaluation["win_rate"] == pytest.approx(wins + pair["tie_rate"] / 2)


def test_every_figure_is_finite(chain):
    def check(value, place):
        if isinstance(value, dict):
            for key, item in value.items():
                check(item, f"{place}.{key}")
        elif isinstance(value, list):
            for index, item in enumerate(value):
                check(item, f"{place}[{index}]")
        elif value is None:
            assert place.rpartition(".")[2] in MAY_BE_NULL, place
        elif isinstance(value, float):
            assert math.isfinite(value), place

    summary = chain.json("summary.json")
    assert set(summary.pop("best_of_n").values()) == {None}  # the run has no such stage
    check(summary, "summary")
    for name in ("pretrained", "sft", "reward", "policy"):
        check(chain.rows(f"stages/{name}/metrics.jsonl"), name)


def test_training_moved_the_models(chain):
    for name in ("pretrained", "sft"):
        losses = [row["loss"] for row in chain.rows(f"stages/{name}/metrics.jsonl") if "loss" in row]
        assert losses[-1] < losses[0] - 0.2, name
    before, *_, after = [row["eval_loss"] for row in chain.rows("stages/sft/metrics.jsonl") if "eval_loss" in row]
    assert after < before - 0.1
    steps = [row for row in chain.rows("stages/policy/metrics.jsonl") if "policy_loss" in row]
    assert [row["step"] for row in steps] == [1, 2, 3, 4]
    assert steps[0]["kl"] == pytest.approx(0, abs=1e-5) and steps[0]["ratio_deviation"] < 1e-3
    assert chain.json("summary.json")["policy"]["kl"] > 1e-4, "the policy did not leave the tuned model"
    assert chain.json("summary.json")["evaluation"]["policies"]["policy"]["kl_sequence"] > 1e-3


def test_preferences_have_trl_s_columns_and_the_sampled_ids(chain):
    from gemma_keras import GemmaTokenizer
    from gemma_keras.text.chat import encode_prompt

    tokenizer = GemmaTokenizer.from_folder(chain.stage("sft") / "model")
    rows = chain.rows("stages/preferences/preferences.jsonl")
    assert len(rows) == chain.json("stages/preferences/final.json")["pairs"] >= 30
    for row in rows:
        assert all(isinstance(row[column], str) for column in ("prompt", "chosen", "rejected"))
        assert row["prompt_ids"] == encode_prompt(tokenizer, row["prompt"])
        assert row["chosen_ids"] != row["rejected_ids"]
        for side in ("chosen", "rejected"):
            assert 1 <= len(row[f"{side}_ids"]) <= 8
            assert tokenizer.decode(row[f"{side}_ids"]) == row[side]
        p = 1 / (1 + math.exp((row["score_rejected"] - row["score_chosen"]) / 0.2))
        assert row["probability"] == pytest.approx(p)


class Page(html.parser.HTMLParser):
    """Sections of the report with their text, and addresses of anything that it would load."""

    def __init__(self, text):
        super().__init__()
        self.text, self.outside, self._section = {}, [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag == "section":
            self._section = attributes["id"]
            self.text[self._section] = ""
        loads = [
            value
            for name, value in attrs
            if name in ("src", "href", "xlink:href", "srcset") and not (value or "").startswith("#")
        ]
        self.outside += [value for value in loads if tag != "a"]

    def handle_data(self, data):
        if self._section:
            self.text[self._section] += data


def test_the_report_has_its_sections_and_loads_nothing(chain):
    page = Page((chain.folder / "report.html").read_text(encoding="utf-8"))
    assert list(page.text) == SECTIONS
    assert all(len(text.strip()) > 20 for text in page.text.values())
    assert page.outside == []
    assert all(name in page.text["chain"] for name in STAGES)
    shown = [float(number) for number in re.findall(r"(?<![\w.])\d+\.\d+(?![\w.])", page.text["policy"])]
    assert any(
        number == pytest.approx(chain.json("summary.json")["policy"]["kl_sequence"], rel=0.01) for number in shown
    )


def test_the_same_command_again_skips_every_stage(chain_copy):
    before = chain_copy.results()
    modified = {path: path.stat().st_mtime_ns for path in (chain_copy.folder / "stages").rglob("*")}
    output = chain_copy.finish()  # without --in-process: no stage is started, so it takes no backend
    assert [line.split()[1] for line in output.splitlines() if line.endswith("finished before, skipped")] == list(
        STAGES
    )
    assert chain_copy.results() == before
    assert {path: path.stat().st_mtime_ns for path in (chain_copy.folder / "stages").rglob("*")} == modified


only_on_torch = pytest.mark.skipif(os.environ["KERAS_BACKEND"] != "torch", reason="transformers runs on torch")


@only_on_torch
def test_the_policy_opens_in_transformers(chain):
    import torch
    import transformers

    from gemma_keras import GemmaCausalLM
    from gemma_keras.backends import to_host

    folder = chain.stage("policy") / "model"
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ours = GemmaCausalLM.from_preset(folder)
    row = chain.rows("stages/preferences/preferences.jsonl")[0]
    turns = [{"role": "user", "content": row["prompt"]}]
    ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    assert ids == row["prompt_ids"]
    ids = np.array([ids + row["chosen_ids"]])
    with torch.no_grad():
        expected = theirs(torch.tensor(ids)).logits.numpy()
    logits = to_host(ours({"token_ids": ids, "padding_mask": np.ones_like(ids, bool)}))
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    assert set(theirs.generation_config.eos_token_id) == set(ours.tokenizer.stop_token_ids)


@only_on_torch
@pytest.mark.parametrize("side", ["left", "right"])
def test_the_reward_model_opens_in_transformers(chain, side):
    import torch
    import transformers

    from gemma_keras import GemmaRewardModel
    from gemma_keras.backends import to_host

    folder = chain.stage("reward") / "model"
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    ours = GemmaRewardModel.from_preset(folder)
    final = chain.json("stages/reward/final.json")
    assert (ours.reward_mean, ours.reward_std) == pytest.approx((final["reward_mean"], final["reward_std"]))
    rows = [row["prompt_ids"] + row["chosen_ids"] for row in chain.rows("stages/preferences/preferences.jsonl")[:8]]
    width = max(map(len, rows))
    ids, real = np.zeros((len(rows), width), np.int64), np.zeros((len(rows), width), bool)
    for number, row in enumerate(rows):
        part = slice(width - len(row), None) if side == "left" else slice(len(row))
        ids[number, part], real[number, part] = row, True
    with torch.no_grad():
        expected = theirs(torch.tensor(ids), attention_mask=torch.tensor(real)).logits[:, 0].numpy()
    scores = to_host(ours({"token_ids": ids, "padding_mask": real}))
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    assert np.ptp(scores) > 1e-3


def test_the_lock_names_what_each_stage_was_made_of(chain):
    lock = chain.json("workflow.lock")
    assert lock["seed"] == 17
    for name in STAGES:
        assert lock["stages"][name]["key"] == json.loads((chain.stage(name) / "stage.json").read_text())["key"]
    assert set(lock["stages"]["policy"]["inputs"]) == {"sft", "reward"}


def kill_when(run, found, *options, **variables):
    """Start the run, and kill its runner (SIGKILL) as soon as `found()`."""
    process = run.start(*options, **variables)
    give_up = time.monotonic() + 240
    while not found():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < give_up
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def all_stages(slow_ones):
    return pytest.param(slow_ones, marks=pytest.mark.slow, id="all stages")


@pytest.mark.parametrize("stages", [pytest.param(3, id="three stages"), all_stages(6)])
@pytest.mark.once
def test_a_killed_run_in_a_fresh_folder_ends_like_the_uninterrupted_one(chain, make_chain, stages):
    """Real processes for each stage, other hash seeds, killed once a stage is finished and once in the middle of
    one, after an update that no state holds."""
    names = list(chain.json("summary.json")["stages"])[:stages]
    run = make_chain(stages)
    kill_when(run, (run.folder / "stages/pretrained").exists, PYTHONHASHSEED="1")
    assert (run.folder / "stages/pretrained/final.json").is_file() and not (run.folder / "stages/sft").exists()
    run.interrupt("sft:4", PYTHONHASHSEED="2")
    output = run.finish(PYTHONHASHSEED="3")
    assert output.count("finished before, skipped") == 1 and "going on at 3 of 6 updates" in output
    expected = chain.results(names)
    assert sum(place.endswith("model.safetensors") for place in expected) == {3: 2, 6: 4}[stages]
    assert run.results(names) == expected


@pytest.mark.once
@pytest.mark.once
def test_a_policy_killed_between_two_steps_ends_like_the_uninterrupted_one(chain, chain_copy):
    for name in ("policy", "evaluation"):
        shutil.rmtree(chain_copy.stage(name))
    chain_copy.interrupt("policy:2")
    assert "going on at 1 of 4 steps" in chain_copy.finish("--in-process")
    assert chain_copy.results() == chain.results()


@pytest.mark.slow
def test_other_seeds_give_other_weights(chain, make_chain):
    run = make_chain(2)
    run.workflow.write_text(run.workflow.read_text().replace("seed: 17", "seed: 18"))
    run.finish("--in-process", "--quiet")
    ours, theirs = run.results(["pretrained", "sft"]), chain.results(["pretrained", "sft"])
    same = {place for place in ours if ours[place] == theirs[place]}
    assert not any(place.endswith((".safetensors", "stage.json", "metrics.jsonl")) for place in same)


REPEATED = ("policy", "evaluation")


@pytest.fixture
def seeds(chain_copy):
    """The finished run, gone on with under two seeds from the policy on: seed → its part, as a run."""
    output = chain_copy.finish("--in-process", "--seeds", "17,18", "--seeds-from", "policy")
    assert output.count("finished before, skipped") == len(STAGES) - len(REPEATED)
    return {seed: dataclasses.replace(chain_copy, folder=chain_copy.folder / "seeds" / str(seed)) for seed in (17, 18)}


@pytest.mark.once
def test_a_seed_s_stages_are_those_of_a_plain_run_with_it(chain, seeds):
    """Bit for bit, keys included: the workflow's own seed is 17, so its plain run has the same stages before."""
    plain, ours, other = (run.results(REPEATED) for run in (chain, seeds[17], seeds[18]))
    assert ours == plain
    same = {place for place in other if other[place] == plain[place]}
    assert not any(place.endswith((".safetensors", "stage.json", "metrics.jsonl", "samples.jsonl")) for place in same)
    summaries = {seed: run.json("summary.json") for seed, run in seeds.items()}
    top = json.loads((seeds[17].folder.parents[1] / "summary.json").read_text(encoding="utf-8"))
    row = {row["label"]: row for row in top["seeds"]["table"]}["policy minus sft: gold reward"]
    for seed, summary in summaries.items():
        assert tuple(summary["stages"]) == STAGES and summary["seed"] == seed
        gold = {name: figures["gold"]["mean"] for name, figures in summary["evaluation"]["policies"].items()}
        assert row["values"][str(seed)] == gold["policy"] - gold["sft"]


@pytest.mark.slow
def test_another_seed_s_policy_is_that_of_a_plain_run_from_the_same_folders(chain, seeds, make_chain):
    run = make_chain()
    before, after = run.workflow.read_text().replace("seed: 17", "seed: 18").split("  pretrained:")
    text = before + "  policy:" + after.split("  policy:")[1]
    for old, name in (("from: sft", "sft"), ("reward: reward", "reward"), ("compare: [sft", "sft")):
        assert text.count(old) == 1
        text = text.replace(old, old.removesuffix(name) + str(chain.stage(name)))
    run.workflow.write_text(text)
    run.finish("--in-process", "--quiet")
    ours, theirs = seeds[18].results(["policy"]), run.results(["policy"])
    # The key and the reward's name say where the earlier stages lie.
    assert {place for place in ours if ours[place] != theirs[place]} <= {
        "stages/policy/stage.json", "stages/policy/final.json"
    }  # fmt: skip
    assert any(place.endswith(".safetensors") for place in ours) and ours.keys() == theirs.keys()
    evaluations = [one.json("stages/evaluation/evaluation.json")["policies"]["policy"] for one in (seeds[18], run)]
    assert evaluations[0] == evaluations[1]
