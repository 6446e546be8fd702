"""Answers that end at a text: those that the model gives alone, cut where the text says."""

import dataclasses

import numpy as np
import pytest
from policy_fixture import world_model

from gemma_keras import GemmaCausalLM
from gemma_keras.sampling import Sampler
from pipelines.sampling import answers_until, prefixes
from pipelines.sampling.answers_until import Question, UntilGenerator

GREEDY = Sampler(temperature=0.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = world_model(tmp_path_factory.mktemp("model"), scale=3.0, stop_scale=0.0)
    return GemmaCausalLM.from_preset(folder / "model")


def contexts(model, count=5):
    texts = ["the", "Repeat the words of the line", "Say it", "one two three four five six", "blue sun"]
    return [[model.tokenizer.bos_token_id, *model.tokenizer.encode(text)] for text in texts[:count]]


def alone(model, context, sampler, count, seed=None):
    """What `generate` gives for one prompt of ids, as text."""
    found = model.generate([context], max_length=len(context) + count, sampler=sampler, strip_prompt=True, seed=seed)
    return model.tokenizer.decode(found["token_ids"][0][found["padding_mask"][0]])


@pytest.mark.once
def test_answers_are_those_of_each_question_alone(model):
    asked = [Question(ids, (), 13 + n, GREEDY, ()) for n, ids in enumerate(contexts(model))]
    texts, cut = UntilGenerator(model, 60, 512, 0)(asked)
    assert texts == [alone(model, one.context, "greedy", one.max_new_tokens) for one in asked] and cut == 0
    assert len(set(texts)) > 1


def behind_examples(model, count):
    """Questions behind examples of more than 64 tokens."""
    before = [model.tokenizer.bos_token_id, *(model.tokenizer.encode("Say the words of the line, then stop. ") * 3)]
    assert 80 <= len(before) < 200
    return [Question([*before, *ids[1:]], (), 8, GREEDY, (), "shots") for ids in contexts(model, count)]


def test_a_beginning_that_all_share_is_read_once(model, monkeypatch):
    asked = behind_examples(model, 3)
    shared = UntilGenerator(model, 512, 512, 0)(asked)
    monkeypatch.setattr(prefixes, "LEAST_PREFIX", 10_000)
    assert shared == UntilGenerator(model, 512, 512, 0)(asked) and len(set(shared[0])) > 1


@pytest.mark.once
def test_beginnings_of_groups(model, monkeypatch):
    """In batches of several widths; of two groups one has none."""
    asked = behind_examples(model, 5) + [Question(ids, (), 8, GREEDY, (), "loose") for ids in contexts(model, 2)]
    reads = []

    class Counted(prefixes.PrefixReader):
        def __call__(self, prefix, width):
            reads.append((len(prefix), width))
            return super().__call__(prefix, width)

    monkeypatch.setattr(answers_until, "PrefixReader", Counted)
    texts, cut = UntilGenerator(model, 64, 512, 0)(asked)
    assert len(reads) > 1 and set(reads) == {reads[0]} and reads[0][0] >= 80 and reads[0][1] > reads[0][0]
    monkeypatch.setattr(prefixes, "LEAST_PREFIX", 10_000)
    assert (texts, cut) == UntilGenerator(model, 512, 512, 0)(asked) and cut == 0
    assert set(reads) == {reads[0]} and len(set(texts)) > 1


def test_answers_end_before_their_texts(model):
    whole, _ = UntilGenerator(model, 512, 512, 0)([Question(ids, (), 40, GREEDY, ()) for ids in contexts(model)])
    # Of each answer two characters from its middle, and something that no answer holds.
    until = [(text[len(text) // 2 :][:2], "\N{SNOWMAN}") for text in whole]
    asked = [Question(ids, ends, 40, GREEDY, ()) for ids, ends in zip(contexts(model), until, strict=True)]
    found, _ = UntilGenerator(model, 512, 512, 0)(asked)
    assert found == [text[: text.index(ends[0])] for text, ends in zip(whole, until, strict=True)]
    assert any(0 < len(short) < len(text) for short, text in zip(found, whole, strict=True))


@pytest.mark.once
def test_a_batch_ends_when_all_of_its_answers_have(model, monkeypatch):
    steps = []

    class Counted(answers_until.Decoding):
        def advance(self, count):
            steps.append(count)
            super().advance(count)

    monkeypatch.setattr(answers_until, "Decoding", Counted)
    (context,) = contexts(model, 1)
    first = alone(model, context, "greedy", 1)
    UntilGenerator(model, 512, 512, 0)([Question(context, (first,), 200, GREEDY, ())])
    assert not steps, "the first token ends it"


@pytest.mark.once
def test_draws_are_keyed_and_not_by_the_batch(model):
    warm = Sampler(temperature=1.5, top_k=20)
    asked = [Question(ids, ("zzz",), 12, warm, ("t", n, k)) for n, ids in enumerate(contexts(model)) for k in range(2)]
    together, _ = UntilGenerator(model, 4096, 512, 7)(asked)
    apart, _ = UntilGenerator(model, 48, 512, 7)(asked)
    assert together == apart and len(set(together)) > 6
    other, _ = UntilGenerator(model, 4096, 512, 8)(asked)
    assert other != together
    mixed, _ = UntilGenerator(model, 4096, 512, 7)([*asked[:3], dataclasses.replace(asked[3], sampler=GREEDY)])
    assert mixed[:3] == together[:3] and mixed[3] == alone(model, asked[3].context, "greedy", 12)


@pytest.mark.once
def test_an_interrupted_one_samples_the_other_batches_alone(model):
    asked = [Question(ids, (), 16, GREEDY, ()) for ids in contexts(model)]
    kept, calls = {}, []

    def keep(name, compute, of):
        kept[name] = compute()
        return kept[name]

    first, _ = UntilGenerator(model, 64, 512, 0)(asked, keep)
    assert len(kept) == of_all(kept)

    def half(name, compute, of):
        if name in ("0", "1"):
            return {part: np.array(values) for part, values in kept[name].items()}
        calls.append(name)
        return compute()

    again, _ = UntilGenerator(model, 64, 512, 0)(asked, half)
    assert again == first and calls == [name for name in kept if name not in ("0", "1")] and calls


def of_all(kept):
    return max(map(int, kept)) + 1


@pytest.mark.once
def test_long_contexts_lose_their_beginning(model):
    long = contexts(model)[3] * 8
    asked = [Question(long, (), 8, GREEDY, ()), Question(contexts(model)[0], (), 8, GREEDY, ())]
    texts, cut = UntilGenerator(model, 512, 40, 0)(asked)
    assert cut == 1 and texts[0] == alone(model, long[-32:], "greedy", 8)
    with pytest.raises(ValueError, match="no room"):
        UntilGenerator(model, 512, 8, 0)(asked)
