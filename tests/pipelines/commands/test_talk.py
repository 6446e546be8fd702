"""`chat` and `generate` with a small model, in this process."""

import io
import json

import pytest
import stage_fixture

from gemma_keras import GemmaBackbone, GemmaCausalLM, GemmaConfig, GemmaTokenizer, Sampler
from gemma_keras.generation import generate_tokens
from gemma_keras.inputs import prompt_data
from gemma_keras.random import uniforms
from pipelines import cli

PROMPTS = ["red", "blue dog", "moon " * 9, "a", "sun cat"]
OPTIONS = ["--max-new-tokens", "6", "--temperature", "0.8"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return stage_fixture.tiny_tuned_model(tmp_path_factory.mktemp("tuned"))


@pytest.fixture(autouse=True)
def same_backend(monkeypatch, backend):
    monkeypatch.setenv("KERAS_BACKEND", backend)


@pytest.fixture
def piped(monkeypatch):
    return lambda text: monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


def test_row_i_draws_the_same_whatever_the_batch(folder, tmp_path, capsys):
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in PROMPTS))
    found = []
    for size in ("2", "16"):
        assert cli.main(["generate", str(folder), "--file", str(file), "--batch-size", size, *OPTIONS]) == 0
        captured = capsys.readouterr()
        found.append([json.loads(line) for line in captured.out.splitlines()])
        assert "generating: 5/5 (100%)" in captured.err
    assert [row["prompt"] for row in found[0]] == PROMPTS
    assert found[0] == found[1]
    # As one prompt at a time: draw i of row i.
    model = GemmaCausalLM.from_preset(folder / "model")
    for row, text in enumerate(PROMPTS):
        expected = alone(model, text, row, 6)
        assert found[0][row]["response"] == expected
    assert len({row["response"] for row in found[0]}) > 1


def alone(model, text, row, new_tokens):
    """The answer to one prompt in a batch of its own."""
    (ids,), _ = prompt_data.encode([{"role": "user", "content": text}], model.tokenizer, model.config.vocabulary_size)
    draws = uniforms(0, "generate", row, shape=(1, new_tokens))
    sampler, stops = Sampler(temperature=0.8), model.tokenizer.stop_token_ids
    prompt = prompt_data.left_padded([ids], model.tokenizer.pad_token_id)
    generated = generate_tokens(model, *prompt, new_tokens, draws, sampler, stops)
    return model.tokenizer.decode(generated.responses()[0]).strip()


def test_prompts_of_standard_input_and_turns(folder, piped, capsys):
    piped("red\nblue dog\n")
    assert cli.main(["generate", str(folder), *OPTIONS, "--quiet"]) == 0
    plain = capsys.readouterr()
    assert cli.main(["generate", str(folder), *OPTIONS, "--json", "--prompt", "red", "--prompt", "blue dog"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert plain.err == "" and plain.out == "".join(row["response"] + "\n" for row in rows)
    turns = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "red"}]
    piped(json.dumps({"messages": turns}) + "\n")
    assert cli.main(["generate", str(folder), *OPTIONS]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["prompt"] == turns
    assert captured.err.splitlines() == [f"{folder}: loading Keras", f"{folder}: loading weights"]


def test_a_row_that_the_model_cannot_take_is_named(tmp_path, capsys):
    place = tmp_path / "first"
    tokenizer = GemmaTokenizer.train(stage_fixture.sentences(50), 300, "gemma")
    sizes = {"num_layers": 1, "num_query_heads": 1, "num_key_value_heads": 1, "head_dim": 8, "hidden_dim": 16}
    config = GemmaConfig(vocabulary_size=tokenizer.vocabulary_size, intermediate_dim=32, **sizes)
    GemmaCausalLM(GemmaBackbone(config, seed=1), tokenizer).save_to_preset(place)
    file = tmp_path / "p.jsonl"
    turns = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "red"}]
    file.write_text(json.dumps({"messages": turns}) + "\n")
    assert cli.main(["generate", str(place), "--file", str(file), "--quiet"]) == 65
    assert capsys.readouterr().err.startswith(f"error: {file}:1: gemma has no system role")
    assert cli.main(["chat", str(place), "--system", "be brief", "--quiet"]) == 2
    assert capsys.readouterr().err == (
        "error: --system: gemma has no turn for instructions; Gemma 3 has one. Put the text into your first turn\n"
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_weights_are_held_in_the_dtype_asked_for(folder, dtype, capsys, monkeypatch):
    held = []
    load = GemmaCausalLM.from_preset

    def recorded(*arguments, **options):
        held.append(load(*arguments, **options))
        return held[-1]

    monkeypatch.setattr(GemmaCausalLM, "from_preset", recorded)
    assert cli.main(["generate", str(folder), "--prompt", "red", "--dtype", dtype, *OPTIONS, "--quiet"]) == 0
    assert {str(variable.dtype) for variable in held[0].weights} == {dtype}


def test_a_conversation_asks_the_model(folder, piped, capsys, monkeypatch):
    calls = []

    def stream(model, inputs, max_length=256, stop_token_ids="auto", seed=None, sampler=None, stop=None):
        ids = prompt_data.encode(inputs, model.tokenizer, model.config.vocabulary_size)[0][0]
        calls.append((inputs, max_length - len(ids), seed, sampler))
        yield from ("red ", f"cat {len(inputs)}")

    monkeypatch.setattr(GemmaCausalLM, "stream", stream, raising=False)
    piped("one\n/regenerate\ntwo\n/undo\n\nthree\n")
    assert cli.main(["chat", str(folder), "--system", "be brief", *OPTIONS]) == 0
    captured = capsys.readouterr()
    assert captured.out == "red cat 2\nred cat 2\nred cat 4\n"
    assert captured.err.splitlines() == [
        f"{folder}: loading Keras",
        f"{folder}: loading weights",
        "taken back; 1 turn is left",
    ]
    assert [[turn["role"] for turn in inputs] for inputs, *_ in calls] == [
        ["system", "user"],
        ["system", "user"],
        ["system", "user", "assistant", "user"],
    ]
    assert all(new_tokens == 6 and sampler == Sampler(temperature=0.8) for _, new_tokens, _, sampler in calls)
    seeds = [seed for _, _, seed, _ in calls]
    assert len(set(seeds)) == 3, "an answer anew has other draws"
    piped("one\n")
    cli.main(["chat", str(folder), *OPTIONS])
    assert calls[-1][2] == seeds[0], "the same seed, the same answers"
