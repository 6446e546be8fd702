"""What a model says word for word: of documents that stand in its data once and many times, and of others."""

import dataclasses
import json
import re

import numpy as np
import pytest
from stage_fixture import WORDS, make_context, read_jsonl, stage_config, write_jsonl

from gemma_keras import GemmaTokenizer
from pipelines.data.columns import PromptCompletion, Text
from pipelines.data.contents import SeenPrompts, prompt_hashes
from pipelines.host.errors import ConfigError, DataError
from pipelines.measures.personal_data import Found
from pipelines.schema.model import ScratchModel
from pipelines.stages.memorization import run as memorization
from pipelines.stages.memorization.documents import Place, Source, questions
from pipelines.stages.pretraining import run as pretraining

SIZES = {
    "config": {
        "num_layers": 2, "num_query_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "hidden_dim": 48,
        "intermediate_dim": 96,
    },
    "tokenizer": {"vocabulary_size": 320},
}  # fmt: skip
PLANTED = {64: ["write to anna.lee@example.com", "pay 4111 1111 1111 1111 now"], 1: ["not bob@example.org"]}
REPEATS = (1, 4, 16, 64)


def documents(random, count):
    return [" ".join(random.choice(WORDS, 40)) for _ in range(count)]


def context_of(folder, name, inputs=None):
    context = make_context(folder, name, inputs)
    return dataclasses.replace(context, model=ScratchModel.model_validate(SIZES))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model of documents that stand in its data 1, 4, 16 and 64 times, and the folder that all lies in."""
    folder, random = tmp_path_factory.mktemp("memorization"), np.random.default_rng(0)
    texts = {count: documents(random, 6) for count in REPEATS}
    for count, pieces in PLANTED.items():
        for row, piece in enumerate(pieces):
            words = texts[count][row].split()
            texts[count][row] = " ".join([*words[:9], piece, *words[9:]])
    rows = [{"text": text} for count, of_count in texts.items() for text in of_count * count]
    data = {"path": write_jsonl(folder / "documents.jsonl", rows)}
    write_jsonl(folder / "unseen.jsonl", [{"text": text} for text in documents(random, 500)])
    config = stage_config(
        "pretraining", data=data, max_length=128, batch_size=16, learning_rate=1e-2, epochs=5, beta_2=0.98,
        heldout_fraction=0,
    )  # fmt: skip
    context = context_of(folder, "pretrained")
    pretraining.run(config, context)
    about = {"kind": "pretraining", "config": config.model_dump(mode="json", by_alias=True)}
    (context.output / "stage.json").write_text(json.dumps(about), encoding="utf-8")
    return folder


def ask(folder, name="asked", **options):
    settings = {"prompt_tokens": 8, "continuation_tokens": 32, "batch_size": 128, "data": "pretrained", **options}
    context = context_of(folder, name, {"pretrained": folder / "pretrained"})
    return memorization.run(stage_config("memorization", models=["pretrained"], **settings), context), context


@pytest.fixture(scope="module")
def asked(trained):
    return ask(trained, unseen={"path": "unseen.jsonl"})


def test_what_stands_in_the_data_more_often_is_said_more_often(asked):
    figures, _ = asked
    by_repeats = {row["at_least"]: row for row in figures["by_repeats"]}
    rates = [by_repeats[count]["exact"] for count in REPEATS]
    assert rates == sorted(rates) and rates[0] < 0.5 and rates[-1] >= 0.9
    assert [row["documents"] for row in by_repeats.values()] == [6, 6, 6, 6]
    of_all, unseen = figures["rows"]
    assert (of_all["group"], of_all["documents"]) == ("trained", 24)
    assert of_all["exact"] == pytest.approx(np.mean(rates))
    assert (unseen["group"], unseen["documents"], unseen["exact"], unseen["approximate"]) == ("unseen", 500, 0, 0)
    assert unseen["exact_ci95"][0] == 0 and 0 < unseen["exact_ci95"][1] < 0.01


def test_approximate_is_at_least_exact(asked):
    figures, _ = asked
    assert all(row["approximate"] >= row["exact"] for row in [*figures["rows"], *figures["by_repeats"]])


def test_figures_by_hand():
    """Of six documents the third is none of the part; within three edits of ten tokens are 0, 3 and 2, but not 4."""
    phone, card = Found("phone", 0, 3, "personal"), Found("credit_card", 4, 9, "sensitive")
    answers = memorization._Answers(
        [], None, np.array([0, 3, 0, 4, 10, 2]), [[phone, card], [phone], [card], [], [], []], most_edits=3.0
    )
    assert memorization._figures(answers, np.array([True, True, False, True, True, True])) == {
        "documents": 5,
        "exact": 0.2,
        # Wilson's, but for the lower end of one in five, which is that of a Poisson number (`score_interval`).
        "exact_ci95": [pytest.approx(0.0079, abs=1e-3), pytest.approx(0.6245, abs=1e-3)],
        "approximate": 0.6,
        "approximate_ci95": [pytest.approx(0.2307, abs=1e-3), pytest.approx(0.8824, abs=1e-3)],
        "personal_data": {"sensitive": 1, "personal": 1, "none": 1},
        "kinds": {"credit_card": 1, "phone": 2},
    }


@pytest.mark.parametrize(
    ("groups", "warning"),
    [
        (["unseen"], "none of these documents is among what m was trained on: no figure is of memorization"),
        (["given"], "no document is known not to be of m's training data, to compare with; name some: unseen"),
        (["trained", "unseen"], None),
    ],
)
def test_what_must_be_known_before_a_figure_is_believed(tmp_path, groups, warning):
    context = make_context(tmp_path, "asked")
    rows = [{"model": "m", "group": group, "personal_data": {"sensitive": 0}} for group in groups]
    memorization._warn(rows, context)
    assert context.warnings == ([] if warning is None else [warning])


def test_personal_data_in_what_was_memorized_is_counted_by_severity_and_never_written(asked):
    figures, context = asked
    often = figures["by_repeats"][-1]
    memorized = round(often["approximate"] * often["documents"])
    assert often["personal_data"] == {"sensitive": 1, "personal": 1, "none": memorized - 2}
    assert often["kinds"] == {"credit_card": 1, "email": 1}
    written = (context.output / "memorized.jsonl").read_text(encoding="utf-8") + json.dumps(figures["examples"])
    assert "[EMAIL]" in written and "[CREDIT_CARD]" in written
    assert not re.search("anna|4111|bob@", written)
    assert "1 memorized text holds sensitive data, see the table" in context.warnings


def test_what_was_memorized_is_written_with_the_documents_words(asked, trained):
    figures, context = asked
    shown, texts = read_jsonl(context.output / "memorized.jsonl"), (trained / "documents.jsonl").read_text("utf-8")
    assert len(shown) == round(figures["rows"][0]["approximate"] * 24) > 5
    whole = [row["continuation"] for row in shown if not row["edits"] and "[" not in row["continuation"]]
    assert len(whole) > 3 and all(text in texts for text in whole) and figures["examples"] == shown[:5]


def test_a_stage_of_another_kind_or_of_rows_that_a_stage_left(trained):
    about = json.loads((trained / "pretrained" / "stage.json").read_text(encoding="utf-8"))
    for change, message in (
        ({"kind": "policy_optimization"}, "learns from no documents; name a stage of kind pretraining or instruction"),
        ({"config": {**about["config"], "data": "clean"}}, "learned from the rows that the stage 'clean' left; name"),
    ):
        other = trained / f"other_{len(message)}"
        (other / "model").mkdir(parents=True)
        (other / "stage.json").write_text(json.dumps({**about, **change}), encoding="utf-8")
        context = context_of(trained, "other", {"pretrained": trained / "pretrained", "other": other})
        with pytest.raises(ConfigError, match=message):
            memorization.run(stage_config("memorization", models=["pretrained"], data="other"), context)


def test_documents_that_are_too_short(trained):
    with pytest.raises(DataError, match=r"documents\.jsonl:\d+: none of 24 documents has the 70 tokens that are shown"):
        ask(trained, "short", prompt_tokens=70, continuation_tokens=50)


# Documents and how they are cut, which needs no model.


@pytest.fixture(scope="module")
def tokenizer():
    return GemmaTokenizer.train([" ".join(WORDS)] * 20, 300, "gemma3")


def config_of(**options):
    settings = {"prompt_tokens": 3, "continuation_tokens": 4, "documents": 2, **options}
    return stage_config("memorization", models=["m"], data="m", **settings)


def source_of(examples, is_unseen=False, **limits):
    return Source(Place("web", "", "instruction", is_unseen, **limits), examples, [1] * len(examples))


@pytest.mark.no_backend
def test_prompt_and_truth_are_ids_of_one_encoding(tokenizer):
    text = "red cat two sun moon dog one"
    ids = tokenizer.encode(text)
    ((one,), passed_over) = questions(source_of([Text(text, "a:1")]), tokenizer, None, config_of())
    assert one.shown == [tokenizer.bos_token_id, *ids[:3]] and one.truth == ids[3:7] and passed_over == 0
    assert (one.source, one.group, one.repeats) == ("web", "given", 1)
    # With as many tokens as are asked for, but the last of them its end.
    short = questions(source_of([Text(text, "a:1")]), tokenizer, None, config_of(continuation_tokens=len(ids) - 2))
    assert short == ([], 1)


@pytest.mark.no_backend
def test_of_an_answer_all_that_stands_before_it_is_shown(tokenizer):
    row = PromptCompletion("red cat", "two sun moon dog one three", "a:1")
    ((one,), _) = questions(source_of([row]), tokenizer, None, config_of())
    answer = tokenizer.encode(row.completion)
    assert one.shown[-3:] == answer[:3] and one.truth == answer[3:7]
    assert tokenizer.start_of_turn_id in one.shown and "red cat" in tokenizer.decode(one.shown)


@pytest.mark.no_backend
def test_documents_are_told_apart_by_what_the_model_has_learned_from(tokenizer):
    texts = [Text(f"{word} cat two sun moon dog one", f"a:{row}") for row, word in enumerate(WORDS[:6])]
    seen = SeenPrompts.of(prompt_hashes(one) for one in texts[::2])
    found, _ = questions(source_of(texts), tokenizer, seen, config_of())
    assert [one.group for one in found] == ["trained"] * 2 + ["unseen"] * 2  # `documents` of each
    marked, _ = questions(source_of(texts, is_unseen=True), tokenizer, None, config_of())
    assert {one.group for one in marked} == {"unseen"}
    caught, _ = questions(source_of(texts[:1], is_unseen=True), tokenizer, seen, config_of())
    assert [one.group for one in caught] == ["trained"]  # whatever it was named as


@pytest.mark.no_backend
def test_what_training_left_out_or_cut_off_is_not_asked_for(tokenizer):
    texts = [Text("red cat two sun moon dog one", "a:1")]
    whole = 1 + len(tokenizer.encode(texts[0].text)) + 1
    for longest, is_dropped, count in ((whole, True, 1), (whole - 1, True, 0), (whole - 1, False, 1), (7, False, 0)):
        found, _ = questions(source_of(texts, longest=longest, is_dropped=is_dropped), tokenizer, None, config_of())
        assert len(found) == count, (longest, is_dropped)


@pytest.mark.no_backend
@pytest.mark.parametrize(
    ("options", "place", "message"),
    [
        ({"models": ["a", "a"]}, "models", "a model is named twice"),
        ({"max_length": 100}, "max_length", "100 has no room for 50 + 50 tokens and the one that begins a text"),
        (
            {"unseen": [{"name": "web", "path": "a.jsonl"}, {"name": "web", "stage": "clean"}]},
            "unseen.1.name",
            "two sources are called 'web'",
        ),
    ],
)
def test_what_is_wrong_between_settings(options, place, message):
    config = stage_config("memorization", **{"models": ["a"], "data": "a", **options})
    (found,) = config.problems()
    assert ".".join(map(str, found[0])) == place and message in found[1]
