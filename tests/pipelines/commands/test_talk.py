"""`chat` and `generate` with a small model, in this process."""

import io
import json
import shutil

import pytest
import stage_fixture
from terminal_fixture import Typist

from gemma_keras import GemmaBackbone, GemmaCausalLM, GemmaConfig, GemmaTokenizer, Sampler, text_generation
from gemma_keras.generation import generate_tokens
from gemma_keras.inputs import prompt_data
from gemma_keras.random import uniforms
from pipelines import cli

pytestmark = pytest.mark.once

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
    assert cli.main(["generate", str(folder), "--file", str(file), "--batch-size", "2", *OPTIONS]) == 0
    captured = capsys.readouterr()
    found = [json.loads(line) for line in captured.out.splitlines()]
    assert "generating: 5/5 (100%)" in captured.err
    assert [row["prompt"] for row in found] == PROMPTS
    model = GemmaCausalLM.from_preset(folder / "model")
    assert [row["response"] for row in found] == [alone(model, text, row, 6) for row, text in enumerate(PROMPTS)]
    assert len({row["response"] for row in found}) > 1


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
    config = GemmaConfig(vocabulary_size=300, intermediate_dim=32, **sizes)
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


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_are_held_in_the_dtype_asked_for(folder, dtype, capsys, monkeypatch):
    held = []
    load = GemmaCausalLM.from_preset

    def recorded(*arguments, **options):
        held.append(load(*arguments, **options))
        return held[-1]

    monkeypatch.setattr(GemmaCausalLM, "from_preset", recorded)
    assert cli.main(["generate", str(folder), "--prompt", "red", "--dtype", dtype, *OPTIONS, "--quiet"]) == 0
    assert {str(variable.dtype) for variable in held[0].weights} == {dtype}


def test_a_conversation_streams_what_the_model_answers(folder, piped, capsys, monkeypatch):
    asked, request = [], text_generation.request

    def recorded(model, messages, max_length, stops, seed, sampler, **options):
        if not options:  # of `generate`, below
            asked.append((messages, max_length, seed))
        return request(model, messages, max_length, stops, seed, sampler, **options)

    monkeypatch.setattr(text_generation, "request", recorded)
    piped("red\n/regenerate\nblue dog\n/undo\n\nmoon\n")
    assert cli.main(["chat", str(folder), "--system", "be brief", *OPTIONS]) == 0
    captured = capsys.readouterr()
    assert captured.err.splitlines() == [
        f"{folder}: loading Keras",
        f"{folder}: loading weights",
        "taken back; 1 turn is left",
    ]
    model, sampler = GemmaCausalLM.from_preset(folder / "model"), Sampler(temperature=0.8)
    answers = [
        model.generate(messages, max_length=max_length, seed=seed, sampler=sampler).strip()
        for messages, max_length, seed in asked
    ]
    assert captured.out == "".join(answer + "\n" for answer in answers)
    system, user = {"role": "system", "content": "be brief"}, {"role": "user", "content": "red"}
    assert [messages for messages, *_ in asked] == [
        [system, user],
        [system, user],
        [system, user, {"role": "assistant", "content": answers[1]}, {"role": "user", "content": "blue dog"}],
    ]
    seeds = [seed for *_, seed in asked]
    assert len(set(seeds)) == 3, "an answer anew has other draws"
    piped("red\n")
    cli.main(["chat", str(folder), *OPTIONS])
    assert asked[-1][2] == seeds[0], "the same seed, the same answers"


def test_a_conversation_compiles_seldom(folder, piped, monkeypatch):
    """The loop is compiled for each width of the prompt: 64 to 832, in 12 turns of about 70 tokens each."""
    widths = []

    def pieces(model, asked):
        widths.append(asked.arrays[0].shape[1])
        yield "red cat " * 5

    monkeypatch.setattr(text_generation, "pieces", pieces)
    piped("blue dog sun\n" * 40)
    assert cli.main(["chat", str(folder), *OPTIONS, "--quiet"]) == 0
    assert len(widths) == 40 and widths == sorted(widths) and not any(width % 64 for width in widths)
    assert len(set(widths)) == widths[-1] // 64 < 40


def test_on_a_terminal_an_answer_is_stopped_and_the_conversation_goes_on(folder, tmp_path, repository, backend):
    """The first Ctrl-C stops an answer that would have thousands of tokens, the second ends the conversation."""
    text = talkative(folder)
    arguments = ["-m", "pipelines", "chat", str(folder), "--max-new-tokens", "4000", "--temperature", "0"]
    environment = {"PYTHONPATH": str(repository), "KERAS_BACKEND": backend, "GEMMA_KERAS_CACHE": str(tmp_path)}
    typist = Typist(*arguments, **environment)
    typist.until("> ")
    assert "/help lists" in typist.seen and f"{folder}: loading" in typist.seen
    typist.type(text + "\n")
    typist.until(text + "\r\n")
    length = len(typist.seen)
    while len(typist.seen) < length + 20:
        typist.read()
    typist.interrupt()
    typist.until_after("stopped\r\n", "> ")  # an answer may have a prompt's text in it
    typist.type(f"/save {tmp_path / 'talk.jsonl'}\n")
    typist.until_after("added to", "> ")
    assert typist.interrupt_until_end() == 0
    turns = json.loads((tmp_path / "talk.jsonl").read_text())["messages"]
    assert turns[0] == {"role": "user", "content": text} and len(turns[1]["content"]) >= 10
    assert (tmp_path / "chat_history").read_text().split("\n")[0] == text


def talkative(folder):
    """A turn that the model answers with text that comes to no end."""
    model = GemmaCausalLM.from_preset(folder / "model")
    turns = [[{"role": "user", "content": word}] for word in stage_fixture.WORDS]
    answers = model.generate(turns, max_length=100, sampler="greedy")
    return max(zip(stage_fixture.WORDS, answers, strict=True), key=lambda one: len(one[1].replace("\ufffd", "")))[0]


def test_a_terminal_is_shown_what_it_would_obey_and_a_file_gets_it(folder, monkeypatch, capsys):
    said = "a\x1b]0;title\x07b\u202ec\nd"
    monkeypatch.setattr(GemmaTokenizer, "decode", lambda self, *arguments, **options: said)
    command = ["generate", str(folder), *OPTIONS, "--quiet", "--prompt", "red"]
    assert cli.main(command) == 0
    assert capsys.readouterr().out == said + "\n"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert cli.main(command) == 0
    assert capsys.readouterr().out == r"a\x1b]0;title\x07b\u202ec" + "\nd\n"


def test_half_of_a_surrogate_pair_in_a_prompt(folder, tmp_path, capsys):
    """In JSON, and as a byte of the command line that is no UTF-8."""
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "red"}\n{"prompt": "blue \\ud83d"}\n')
    assert cli.main(["generate", str(folder), *OPTIONS, "--quiet", "--file", str(file)]) == 65
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {file}:2: ") and "half of a surrogate pair" in line
    assert cli.main(["generate", str(folder), *OPTIONS, "--quiet", "--prompt", "red \udcff"]) == 65
    (line,) = capsys.readouterr().err.splitlines()
    assert "half of a surrogate pair" in line


def test_a_home_of_nobody_and_absurd_numbers_are_one_line(folder, tmp_path, capsys):
    assert cli.main(["generate", "~no_such_user_here/x", "--quiet", "--prompt", "red"]) == 65
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ~no_such_user_here/x: no such folder or file")
    shutil.copytree(folder / "model", tmp_path / "model")
    table = json.loads((tmp_path / "model/config.json").read_text())
    (tmp_path / "model/config.json").write_text(json.dumps({**table, "rms_norm_eps": 10**400}))
    for command in (
        ["generate", str(tmp_path / "model"), "--prompt", "red"],
        ["convert", str(tmp_path / "model"), "x"],
    ):
        assert cli.main([*command, "--quiet"]) == 65
        (line,) = capsys.readouterr().err.splitlines()
        assert f"{tmp_path / 'model/config.json'}: `rms_norm_eps` must be a number > 0" in line


def test_an_error_is_shown_without_what_a_terminal_obeys(tmp_path, capsys):
    assert cli.main(["generate", str(tmp_path / "no\x1b[2J\u202e\u2028such"), "--quiet", "--prompt", "red"]) == 65
    text = capsys.readouterr().err
    assert "\x1b" not in text and "\u202e" not in text and r"no\x1b[2J\u202e" in text and text.count("\n") == 1
