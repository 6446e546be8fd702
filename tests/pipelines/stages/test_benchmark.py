"""Benchmarks of a stage: figures against each question asked alone, rows that are drawn, and what is said of them."""

import json

import numpy as np
import pytest
from policy_fixture import world_model
from stage_fixture import WORDS, make_context, stage_config, write_jsonl

from gemma_keras import GemmaCausalLM
from gemma_keras.backends import to_host
from gemma_keras.inputs.padding import padded
from gemma_keras.random import generator
from gemma_keras.text.chat import encode_prompt
from pipelines.data.columns import Prompt
from pipelines.data.contents import SeenPrompts, prompt_hashes
from pipelines.host.errors import ConfigError, DataError
from pipelines.measures.intervals import score_interval
from pipelines.stages.benchmark.card import card as benchmark_card
from pipelines.tasks import kept, task

pytestmark = pytest.mark.needs("lm_eval")

WIDTH = 128


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two models, of which one says that it was tuned, and questions over the words that they know."""
    folder = tmp_path_factory.mktemp("benchmarks")
    for name, kind, seed in (("base", "pretraining", 3), ("tuned", "instruction_tuning", 4)):
        stage = world_model(folder / name, seed=seed, scale=3.0)
        (stage / "stage.json").write_text(json.dumps({"kind": kind}))
    rng = np.random.default_rng(0)

    def words(most):
        return " ".join(rng.choice(WORDS, rng.integers(1, most + 1)))

    rows = [
        {"q": f"say {number} {words(5)}", "c": [f"{words(3)} {k}" for k in range(3)], "a": int(rng.integers(3))}
        for number in range(20)
    ]
    write_jsonl(folder / "choices.jsonl", rows)
    piqa = folder / "data" / "evaluation" / "piqa"
    piqa.mkdir(parents=True)
    goals = [
        {"goal": f"how to say the words {words(3)} {n}", "sol1": words(4), "sol2": words(4), "label": n % 2}
        for n in range(30)
    ]
    write_jsonl(piqa / "valid.jsonl", goals)
    return folder


def run(folder, name, models=("base", "tuned"), **options):
    from pipelines.stages.benchmark import run as benchmark

    config = stage_config("benchmark", models=list(models), batch_tokens=512, **options)
    context = make_context(folder, name, inputs={model: folder / model for model in ("base", "tuned")})
    return benchmark.run(config, context), context


OWN = {"name": "mine", "path": "choices.jsonl", "prompt": "q", "choices": "c", "answer": "a"}


@pytest.fixture(scope="module")
def finished(folder):
    return run(folder, "first", suite=[{**OWN, "shots": 2}, "piqa"], data=str(folder / "data"), limit=12)


def choices_alone(model, contexts, choices):
    """Log-probability of each choice behind its context, each in a row of its own: (n, k)."""
    rows = [[*context, *choice] for context, of_context in zip(contexts, choices, strict=True) for choice in of_context]
    token_ids, is_token = padded(rows, 0, WIDTH)
    log_probs = to_host(model.token_log_probs(token_ids, is_token))
    lengths = [len(choice) for of_context in choices for choice in of_context]
    sums = [row[len(ids) - n : len(ids)].sum() for row, ids, n in zip(log_probs, rows, lengths, strict=True)]
    return np.reshape(sums, (len(contexts), -1))


def ids_of(model, rows, prompt):
    """Contexts and choices of rows as ids: encoded together, as a tokenizer joins letters over the seam."""
    tokenizer = model.tokenizer
    contexts = [[tokenizer.bos_token_id, *tokenizer.encode(prompt(row))] for row in rows]
    choices = [
        [[tokenizer.bos_token_id, *tokenizer.encode(f"{prompt(row)} {choice}")][len(context) :] for choice in row["c"]]
        for row, context in zip(rows, contexts, strict=True)
    ]
    return contexts, choices


def test_choices_are_counted_as_each_is_likely_alone(folder, finished):
    """Two rows that the seed drew stand before each question and are not asked."""
    final, context = finished
    (mine,) = [one for one in final["benchmarks"] if (one["model"], one["benchmark"]) == ("base", "mine")]
    shown = [json.loads(line) for line in (context.output / "samples.jsonl").read_text().splitlines()]
    asked = next(one["asked"] for one in shown if (one["model"], one["benchmark"]) == ("base", "mine"))
    rows = [json.loads(line) for line in (folder / "choices.jsonl").read_text().splitlines()]
    *shots, _ = asked.split("\n\n")
    examples = [row for row in rows if f"{row['q']} {row['c'][row['a']]}" in shots]
    assert len(shots) == 2 and len(examples) == 2, "of each its question and its right choice"
    # Of the other 18 the seed drew 12; which, the rows with their figures say.
    model = GemmaCausalLM.from_preset(folder / "base" / "model")
    others = [row for row in rows if row not in examples]
    contexts, choices = ids_of(model, others, lambda row: f"{asked.rpartition(chr(10))[0]}\n{row['q']}")
    found = choices_alone(model, contexts, choices)
    assert mine["rows"] == 12 and mine["of_rows"] == 18 and mine["shots"] == 2
    right = found.argmax(axis=1) == [row["a"] for row in others]
    places = generator(context.seed, "benchmark rows", "mine").permutation(18)[:12]
    assert mine["metric"] == "acc" and mine["value"] == pytest.approx(right[places].mean())
    assert mine["ci95"] == pytest.approx(score_interval(right[places].astype(float)))
    lengths = np.array([[len(choice) for choice in row["c"]] for row in others])
    normed = (found / lengths).argmax(axis=1) == [row["a"] for row in others]
    assert mine["others"] == {"acc_norm": pytest.approx(normed[places].mean())}


def test_the_same_rows_for_every_model_in_turns_for_the_tuned_one(folder, finished):
    final, context = finished
    turns = {one["model"]: one["turns"] for one in final["benchmarks"]}
    assert turns == {"base": False, "tuned": True}
    shown = [json.loads(line) for line in (context.output / "samples.jsonl").read_text().splitlines()]
    rows = {(one["model"], one["benchmark"]): [] for one in shown}
    for one in shown:
        rows[one["model"], one["benchmark"]].append((one["row"], one["expected"]))
    assert rows["base", "piqa"] == rows["tuned", "piqa"] and rows["base", "mine"] == rows["tuned", "mine"]
    assert len(rows["base", "piqa"]) == 3


@pytest.mark.once
def test_a_context_in_turns_is_what_our_own_template_makes(folder):
    from pipelines.engines.lm_eval.model import GemmaKerasLM

    model = GemmaCausalLM.from_preset(folder / "tuned" / "model")
    asked = GemmaKerasLM(model)
    text = asked.apply_chat_template([{"role": "user", "content": " say <end_of_turn> it \n"}])
    assert asked.tok_encode(text) == encode_prompt(model.tokenizer, "say <end_of_turn> it")
    plain = GemmaKerasLM(model)
    assert plain.tok_encode(text) == [model.tokenizer.bos_token_id, *model.tokenizer.encode(text)], "no turns, no marks"


def test_card_and_figures(finished):
    final, context = finished
    card = "\n".join(benchmark_card({"stage": "asked", **final}))
    row = next(one for one in final["benchmarks"] if (one["model"], one["benchmark"]) == ("tuned", "piqa"))
    assert "| piqa | acc, 0-shot, 12 of 30 rows |" in card and f"{100 * row['value']:.1f} %" in card
    assert "tuned was asked in turns." in card and "lm-eval 0." in card
    assert json.loads((context.output / "benchmarks.json").read_text()) == json.loads(json.dumps(final))


@pytest.mark.once
def test_what_a_model_learned_from_is_counted(folder, tmp_path):
    rows = [json.loads(line) for line in (folder / "data/evaluation/piqa/valid.jsonl").read_text().splitlines()]
    learned = [Prompt(f" {row['goal'].upper()} ", None, "") for row in rows[:7]]
    target = folder / "base" / "model"
    SeenPrompts.of([prompt_hashes(one) for one in learned]).write(target)
    try:
        final, context = run(folder, "seen", ["base"], suite="piqa", data=str(folder / "data"))
    finally:
        next(target.glob("seen_prompts*")).unlink()
    (row,) = final["benchmarks"]
    assert row["seen_in_training"] == 7 and row["rows"] == 30
    assert context.warnings == ["'base' learned from 7 of the 30 rows of piqa; see seen_in_training"]


@pytest.mark.once
def test_a_set_that_is_nowhere(folder):
    """In a suite it is left out, with the reason; named alone it ends the stage."""
    with pytest.raises(DataError, match=r"boolq:1: its rows are neither in .* nor to be had from the hub"):
        run(folder, "nowhere", ["base"], suite="boolq", data=str(folder / "data"))
    final, context = run(folder, "card", ["base"], suite="gemma_3_270m_card", data=str(folder / "data"))
    skipped = [one["benchmark"] for one in final["benchmarks"] if one["skipped"]]
    assert skipped == ["hellaswag", "boolq", "triviaqa", "arc_challenge", "arc_easy", "winogrande"]
    assert context.warnings == [f"not measured, see the report: {', '.join(skipped)}"]
    card = "\n".join(benchmark_card({"stage": "asked", **final}))
    assert "| mean of 1 of the 7 in gemma_3_270m_card |" in card and "| 67.7 % |" in card
    assert "hellaswag was not measured: hellaswag:1: its rows are neither" in card


def test_answers_in_words(folder):
    """`exact_answer` of what the model says, against `generate`."""
    rows = [{"prompt": f"say {word}", "answer": word} for word in WORDS[:6]]
    write_jsonl(folder / "words.jsonl", rows)
    options = {"name": "words", "path": "words.jsonl", "max_new_tokens": 6}
    final, context = run(folder, "words", ["base"], suite=[options])
    (one,) = final["benchmarks"]
    model = GemmaCausalLM.from_preset(folder / "base" / "model")
    answers = [model.generate(row["prompt"], max_length=40, sampler="greedy", strip_prompt=True) for row in rows]
    shown = [json.loads(line) for line in (context.output / "samples.jsonl").read_text().splitlines()]
    assert one["metric"] == "exact_answer" and one["rows"] == 6
    assert all(found["answers"][0] in answer[:40] for found, answer in zip(shown, answers, strict=False))


@pytest.mark.once
def test_the_built_in_task_is_a_benchmark_too(folder):
    asked = {"name": "world", "task": "small_world", "split": "heldout", "size": 6, "max_new_tokens": 6}
    final, context = run(folder, "world", ["base"], suite=[asked], samples_kept=6)
    (one,) = final["benchmarks"]
    shown = [json.loads(line) for line in (context.output / "samples.jsonl").read_text().splitlines()]
    items = {item.prompt: item for item in kept.prompts(task("small_world"), "heldout", 6, context.seed)}
    assert one["metric"] == "right" and one["rows"] == 6 and {row["asked"] for row in shown} == set(items)
    assert one["value"] == np.mean([row["counted"]["right"] for row in shown])
    (problem,) = stage_config("benchmark", models=["a"], suite=[{**asked, "split": "pretraining"}]).own[0].problems()
    assert problem == (("split",), "the texts of pretraining hold no question; expected another part, such as heldout")


@pytest.mark.no_backend
def test_an_answer_to_the_built_in_task_may_be_courteous_and_not_wrong():
    from pipelines.engines.lm_eval.own_tasks import built_in_task

    items = kept.prompts(task("small_world"), "heldout", 12, 17)
    found = built_in_task(items, task("small_world"), 0, 8, 17, "world")
    for item in items:
        right, doc = found["process_results"], {"prompt": item.prompt, "answer": item.answer}
        assert right(doc, [f"of course, {item.answer}."]) == {"right": 1.0}
        assert right(doc, [f"{item.answer} and {item.answer} too"]) == {"right": 0.0}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"q": "say", "c": ["a"], "a": 0}, "'c' must be a list of two texts or more"),
        ({"q": "say", "c": ["a", "b"], "a": 2}, "'a' must be one of the choices, or its number from 0 to 1"),
        ({"q": "say", "c": ["a", "b"], "a": True}, "'a' must be one of the choices"),
        ({"q": "say", "c": ["a", "a"], "a": "a"}, "'a' must be one of the choices"),
        ({"q": " ", "c": ["a", "b"], "a": 0}, "'q' must be a text that is not empty"),
        ({"q": "say", "d": ["a", "b"], "a": 0}, "no column 'c'. Columns there: q, d, a"),
    ],
)
@pytest.mark.once
def test_bad_rows_of_ones_own_are_named(folder, row, words):
    good = {"q": "say", "c": ["a", "b"], "a": "b"}
    write_jsonl(folder / "bad.jsonl", [good, row])
    with pytest.raises(DataError) as caught:
        run(folder, "bad", ["base"], suite=[{**OWN, "path": "bad.jsonl"}])
    assert str(caught.value).startswith(f"{folder}/bad.jsonl:2: ") and words in str(caught.value)


@pytest.mark.once
def test_a_model_without_a_tokenizer(folder, tmp_path):
    model = GemmaCausalLM.from_preset(folder / "base" / "model", preprocessor=None)
    from pipelines.engines.lm_eval.model import GemmaKerasLM

    with pytest.raises(ConfigError, match="has no tokenizer"):
        GemmaKerasLM(model)
