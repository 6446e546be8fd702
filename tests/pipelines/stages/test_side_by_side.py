"""Side by side as a stage: sets, orders, people's ratings and rows with a known choice, with rules, tiny models and an
endpoint's stand-in."""

import json

import numpy as np
import pytest
from openai_stub import endpoint, with_labels
from policy_fixture import world_model
from stage_fixture import make_context, read_jsonl, stage_config, write_jsonl

from pipelines.data.contents import SeenPrompts, prompt_hashes
from pipelines.host.errors import ConfigError, DataError
from pipelines.measures.agreement import agreement_figures
from pipelines.measures.intervals import score_interval
from pipelines.stages.side_by_side import run as side_by_side

pytestmark = pytest.mark.once

DATA = {"task": "small_world", "split": "heldout", "size": 10}
OPTIONS = {"max_new_tokens": 6, "max_length": 96, "batch_size": 8, "samples_kept": 3}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    found = {name: world_model(folder / name, seed=seed, scale=4.0) for name, seed in (("sft", 3), ("policy", 4))}
    for name in found:
        (found[name] / "stage.json").write_text(json.dumps({"kind": "instruction_tuning"}))
    return found


def judged(folder, inputs, **options):
    settings = {"compare": ["sft", "policy"], "data": DATA, "judge": "longest", **OPTIONS, **options}
    context = make_context(folder, "judged", inputs=inputs)
    return side_by_side.run(stage_config("side_by_side", **settings), context), context


@pytest.fixture(scope="module")
def finished(tmp_path_factory, inputs):
    final, context = judged(tmp_path_factory.mktemp("run"), inputs, export=True)
    return final, context, read_jsonl(context.output / "verdicts.jsonl")


def test_figures_are_those_of_the_verdicts(finished):
    final, context, rows = finished
    assert (final["judge"], final["prompts"], final["policy"], final["baseline"]) == ("longest", 10, "policy", "sft")
    expected = [0.5 + 0.5 * np.sign(len(row["policy_answer"]) - len(row["baseline_answer"])) for row in rows]
    assert [row["outcome"] for row in rows] == expected and 0 < final["wins"] < 1
    assert final["win_rate"] == pytest.approx(np.mean(expected))
    assert final["win_rate_ci95"] == pytest.approx(list(score_interval(expected)))
    (comparison,) = final["comparisons"]
    assert comparison["sets"]["all"]["win_rate"] == final["win_rate"] and comparison["asked"] == 20
    assert final["longer_wins"] == 1 and final["position_bias"] == 0 and comparison["sets"]["all"]["people"] is None
    samples = read_jsonl(context.output / "samples.jsonl")
    assert len(samples) == 3 and samples[1]["scores"] == {"policy": expected[1]}
    assert samples[1]["completions"] == {"sft": rows[1]["baseline_answer"], "policy": rows[1]["policy_answer"]}


def test_people_are_shown_pairs_without_names_in_a_drawn_order(finished):
    _, context, rows = finished
    shown = {row["id"]: row for row in read_jsonl(context.output / "pairs_to_rate.jsonl")}
    assert set(shown) == {row["id"] for row in rows} and not any(
        set(one) - {"id", "prompt", "first", "second"} for one in shown.values()
    )
    is_first = [shown[row["id"]]["first"] == row["policy_answer"] for row in rows]
    assert 0 < sum(is_first) < 10
    assert all(
        {shown[row["id"]][side] for side in ("first", "second")} == {row["policy_answer"], row["baseline_answer"]}
        for row in rows
    )


def test_their_ratings_come_back_into_the_same_table(finished, inputs, tmp_path):
    """People prefer the policy in all but the last two pairs, of which they rate one a tie and one not at all."""
    _, context, rows = finished
    shown = {row["id"]: row for row in read_jsonl(context.output / "pairs_to_rate.jsonl")}
    is_first = [shown[row["id"]]["first"] == row["policy_answer"] for row in rows]
    choices = [
        {"id": row["id"], "choice": "first" if first else "second"}
        for row, first in zip(rows[:8], is_first, strict=False)
    ]
    file = write_jsonl(tmp_path / "ratings.jsonl", [*choices, {"id": rows[8]["id"], "choice": "tie"}])
    final, again = judged(tmp_path, inputs, ratings=file)
    people = final["comparisons"][0]["sets"]["all"]["people"]
    assert people["rates"]["win_rate"] == pytest.approx(8.5 / 9) and people["rates"]["tie_rate"] == pytest.approx(1 / 9)
    turned = np.array([1 if shown[row["id"]]["first"] == row["policy_answer"] else -1 for row in rows[:9]])
    truth = np.array([1] * 8 + [0])
    longest = np.array([int(2 * row["outcome"] - 1) for row in rows[:9]])
    expected = agreement_figures(longest * turned, truth * turned, np.arange(9))
    assert people["agreement"]["judge"] == people["agreement"]["longest"] == expected
    shortest = people["agreement"]["shortest"]
    assert shortest["agreement"] == pytest.approx(np.mean(1 - np.abs(-longest - truth) / 2))
    assert set(people["agreement"]) == {"judge", "longest", "shortest", "random"}
    assert [row["people"] for row in read_jsonl(again.output / "verdicts.jsonl")] == [1] * 8 + [0, None]
    with pytest.raises(ConfigError, match="no file 'nowhere.jsonl' with ratings"):
        judged(tmp_path, inputs, ratings="nowhere.jsonl")
    file = write_jsonl(tmp_path / "foreign.jsonl", [{"id": "none", "choice": "tie"}])
    with pytest.raises(DataError, match=r"foreign\.jsonl:1: no pair has the id 'none'"):
        judged(tmp_path, inputs, ratings=file)


def test_sets_are_reported_apart_and_together(inputs, tmp_path):
    file = write_jsonl(tmp_path / "p.jsonl", [{"q": f"count: {'fig ' * i}"} for i in range(1, 5)])
    sets = [
        {"name": "safety", "task": "small_world", "split": "heldout", "size": 6},
        {"name": "ours", "path": file, "prompt": "q"},
    ]
    seen = []
    with endpoint(default=lambda body: seen.append(body["messages"][0]["content"]) or with_labels(A=-0.1, B=-3.0)) as (
        url,
        _,
    ):
        final, context = judged(tmp_path, inputs, data=sets, judge={"base_url": url, "model": "m"}, prompts=3)
    found = final["comparisons"][0]["sets"]
    assert {name: one["pairs"] for name, one in found.items()} == {"safety": 3, "ours": 3, "all": 6}
    assert found["all"]["position_bias"] == 1 and found["all"]["tie_rate"] == 1 and found["all"]["odds_win_rate"] == 0.5
    assert sum("does no harm" in one for one in seen) == 6 and sum("Length alone" in one for one in seen) == 6
    assert context.warnings == [
        "the judge prefers whichever answer is shown first: position bias +1.00, where 0 is fair"
    ]
    assert final["judge"] == f"m at {url}"


def test_a_rubric_of_ones_own(inputs, tmp_path):
    (tmp_path / "rubric.txt").write_text("Prefer the answer that rhymes.\n")
    seen = []
    with endpoint(default=lambda body: seen.append(body["messages"][0]["content"]) or with_labels(A=-0.1, B=-3.0)) as (
        url,
        _,
    ):
        judged(
            tmp_path, inputs, judge={"base_url": url, "model": "m"}, prompts=2, rubric="rubric.txt", order="shuffled"
        )
        (tmp_path / "rubric.txt").write_text(" \n")
        with pytest.raises(ConfigError, match="'rubric.txt' with a rubric"):
            judged(tmp_path, inputs, judge={"base_url": url, "model": "m"}, rubric="rubric.txt")
    assert len(seen) == 2 and all("Prefer the answer that rhymes.\n\n[Request]" in one for one in seen)


def test_rows_with_a_known_choice_measure_the_judge(tmp_path):
    rows = [{"prompt": f"p{i}", "chosen": "x" * (9 if i < 6 else 2), "rejected": "y" * 5} for i in range(8)]
    data = {"path": write_jsonl(tmp_path / "pairs.jsonl", rows)}
    final, context = judged(tmp_path, {}, compare=None, data=data, judge="longest")
    assert (final["policy"], final["baseline"], final["win_rate"]) == ("chosen", "rejected", 0.75)
    found = final["comparisons"][0]["sets"]["all"]["people"]["agreement"]
    assert [found[who]["agreement"] for who in ("judge", "longest", "shortest")] == [0.75, 0.75, 0.25]
    assert found["judge"]["kappa"] is not None and found["random"]["pairs"] == 8
    assert context.warnings == []


def test_a_model_judges_policies_after_it_was_told_whose_they_are(inputs, tmp_path):
    final, context = judged(tmp_path, inputs, judge={"model": "sft", "max_length": 512}, prompts=4)
    assert final["comparisons"][0]["asked"] == 8 and final["comparisons"][0]["too_long"] == 0
    assert "sft judges its own answers, which judges favour" in context.warnings
    assert final["comparisons"][0]["sets"]["all"]["odds_win_rate_ci95"] is not None
    final, context = judged(tmp_path, inputs, judge={"model": "sft", "max_length": 64}, prompts=4)
    assert final["comparisons"][0]["too_long"] == 8 and final["tie_rate"] == 1
    assert any(
        "8 of 8 questions have no verdict and count as ties: 0 answers hold none, 8 questions" in one
        for one in context.warnings
    )


def test_three_policies_are_compared_with_the_first(inputs, tmp_path):
    inputs = {**inputs, "third": inputs["policy"]}
    final, _ = judged(tmp_path, inputs, compare=["sft", "policy", "third"], prompts=4)
    assert [(one["policy"], one["baseline"]) for one in final["comparisons"]] == [("policy", "sft"), ("third", "sft")]
    assert final["policy"] == "third"


def test_prompts_that_were_trained_on_are_counted(inputs, tmp_path):
    from pipelines.data.columns import Prompt
    from pipelines.tasks import task

    items = task("small_world").prompts("heldout", 4, 11)
    SeenPrompts.of([prompt_hashes(Prompt(one.prompt, None, "", one)) for one in items]).write(inputs["sft"] / "model")
    try:
        final, context = judged(tmp_path, inputs)
        assert final["seen_elsewhere"]["sft"]["same_content"] == 4 and "up to 4 of 10 prompts" in context.warnings[0]
    finally:
        (inputs["sft"] / "model" / "seen_prompts.txt").unlink()


def test_long_prompts_are_dropped_for_all(inputs, tmp_path):
    rows = [{"prompt": "count: fig"}, {"prompt": "count: " + "fig " * 60}]
    final, _ = judged(tmp_path, inputs, data={"path": write_jsonl(tmp_path / "p.jsonl", rows)})
    assert (final["prompts"], final["dropped_prompts"]) == (1, 1)
