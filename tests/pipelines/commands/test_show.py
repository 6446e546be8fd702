"""`show`: what a stage makes of its rows, to the letter; and what it says where it cannot know yet."""

import json
import subprocess
import sys

import pytest
from model_folder_fixture import folder_without_weights

from pipelines import cli
from pipelines.commands.token_text import render
from pipelines.host.visible_text import visible

pytestmark = pytest.mark.no_backend

WORKFLOW = """\
name: w
model: {config: {num_layers: 2}}
stages:
  base:
    kind: pretraining
    data: {path: texts.jsonl}
  sft:
    kind: instruction_tuning
    from: ./model
    data: {path: rows.jsonl}
  tuned_from_base:
    kind: instruction_tuning
    from: base
    data: {path: rows.jsonl}
  pairs:
    kind: preference_collection
    from: sft
    data: {task: small_world, split: rl, size: 4}
    max_length: 101
  reward:
    kind: reward_modeling
    from: sft
    data: {path: pairs.jsonl}
  collected:
    kind: reward_modeling
    from: sft
    data: pairs
  evaluation:
    kind: evaluation
    compare: [sft, tuned_from_base]
    judge: reward_model:reward
    data: {path: rows.jsonl, messages: messages}
"""
ROWS = [
    {"messages": [{"role": "user", "content": "red cat?"}, {"role": "assistant", "content": "yes"}]},
    {"messages": [{"role": "user", "content": "is it?"}, {"role": "assistant", "content": "no " * 30}]},
]
PAIRS = [
    {"prompt": "what is it?", "chosen": "yes", "rejected": "no"},
    {
        "chosen": [{"role": "user", "content": "a"}, {"role": "model", "content": "b"}]
        + [{"role": "user", "content": "c"}, {"role": "model", "content": "d"}],
        "rejected": [{"role": "user", "content": "a"}, {"role": "model", "content": "e"}],
    },
]


@pytest.fixture(scope="module")
def here(tmp_path_factory, tiny_configs):
    """A folder with a workflow, its data and a model; and the model's tokenizer."""
    folder = tmp_path_factory.mktemp("show")
    (folder / "w.yaml").write_text(WORKFLOW)
    for name, rows in (("texts", [{"text": "red cat"}]), ("rows", ROWS), ("pairs", PAIRS)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder, folder_without_weights(folder / "model", tiny_configs["gemma3"])


@pytest.fixture
def show(here, monkeypatch, capsys):
    monkeypatch.chdir(here[0])

    def show(*arguments):
        code = cli.main(["show", "w.yaml", *arguments])
        captured = capsys.readouterr()
        return code, (captured.out if code == 0 else captured.err).replace(f"{here[0]}/", "")

    return show


def finish(folder, run, stage):
    place = folder / run / "stages" / stage
    place.mkdir(parents=True)
    for name in ("stage.json", "final.json"):
        (place / name).write_text("{}")
    return place


def test_turns_marks_and_lengths(show, here):
    asked_and_told = [("red cat?", "yes"), ("is it?", ("no " * 30).strip())]
    pieces = [[f"user\n{asked}", "\n", "model\n", told, "\n"] for asked, told in asked_and_told]
    # Beside the pieces of the texts: bos, two starts of a turn and two ends.
    lengths = [5 + sum(len(here[1].encode(text)) for text in texts) for texts in pieces]
    own = len(here[1].encode("yes")) + 1
    code, out = show("sft", "--rows", "1")
    assert code == 0
    assert out == (
        "sft: 1 of 2 rows, read as instruction; [[...]] bears loss\n"
        "\n"
        f"rows.jsonl:1: {lengths[0]} tokens, {own} bear loss\n"
        "  <bos><start_of_turn>user\n"
        "  red cat?<end_of_turn>\n"
        "  <start_of_turn>model\n"
        "  [[yes<end_of_turn>]]\n"
        "  \n"
        "\n"
        f"lengths: {lengths[0]} to {lengths[1]} tokens, median {sum(lengths) / 2:g}\n"
        "0 of 2 rows are over max_length 1024\n"
    )


@pytest.mark.parametrize(
    ("overlong", "of_row", "of_all"),
    [
        ("drop", "over max_length 40: dropped", "1 of 2 rows are over max_length 40, and are dropped"),
        ("error", "over max_length 40: stops the run", "1 of 2 rows are over max_length 40, and stop the run"),
        (
            "truncate",
            "over max_length 40: cut at its end",
            "1 of 2 rows are over max_length 40, and are cut, or dropped",
        ),
    ],
)
def test_rows_that_are_too_long(show, overlong, of_row, of_all):
    code, out = show("sft", "--set", "stages.sft.max_length=40", "--set", f"stages.sft.overlong={overlong}")
    lines = out.splitlines()
    (row,) = (line for line in lines if line.startswith("rows.jsonl:2: "))
    assert code == 0 and row.endswith(of_row) and lines[-1].startswith(of_all)
    # A cut row is shown as cut: without its end, and still in marks.
    assert (row.startswith("rows.jsonl:2: 40 tokens, ")) == (overlong == "truncate")
    assert out.count("<end_of_turn>]]") == (1 if overlong == "truncate" else 2)


def test_a_row_that_would_keep_no_response(show):
    code, out = show("sft", "--set", "stages.sft.max_length=15", "--set", "stages.sft.overlong=truncate")
    assert code == 0
    assert "rows.jsonl:2: " in out and out.count("over max_length 15: dropped, as no whole response would be left") == 2


def test_pairs_with_one_prompt_and_with_two(show, here):
    code, out = show("reward")
    assert code == 0
    first, second = out.split("\n\n")[1:3]
    own = [len(here[1].encode(text)) + 1 for text in ("yes", "no")]
    assert f"({own[0]} its own)" in first and f"({own[1]} its own)" in first
    assert first.splitlines()[1:] == [
        "  prompt: <bos><start_of_turn>user",
        "  what is it?<end_of_turn>",
        "  <start_of_turn>model",
        "  ",
        "  chosen: [[yes<end_of_turn>]]",
        "  rejected: [[no<end_of_turn>]]",
    ]
    assert second.splitlines()[1] == "  chosen: <bos><start_of_turn>user"
    assert second.endswith("  <start_of_turn>model\n  [[e<end_of_turn>]]")
    assert second.count("[[") == 2 and "  [[d<end_of_turn>]]\n  rejected: <bos><start_of_turn>user\n" in second


def test_prompts_and_the_room_for_a_response(show):
    code, out = show("pairs", "--rows", "2")
    assert code == 0
    assert out.startswith("pairs: 2 of 4 rows, read as prompt; a response follows what is shown\n\nsmall_world/rl:1: ")
    assert "leave no room for 64 more within max_length 101: dropped" in out and "[[" not in out
    assert "over 37 tokens, max_length 101 less max_new_tokens 64, and are dropped\n" in out


def test_an_evaluation_reads_prompts_and_responses(show):
    code, out = show("evaluation", "--rows", "1")
    assert code == 0
    assert "1 of 2 rows, read as prompt;" in out and "1 of 2 rows, read as instruction;" in out
    assert show("evaluation", "--set", "stages.evaluation.prompts=1")[1].count(" 1 of 1 rows") == 2


def test_a_tokenizer_that_is_trained_in_the_run(show, here):
    missing = "the tokenizer comes from stage 'base', which has not finished in runs/w."
    for stage in ("base", "tuned_from_base"):
        assert show(stage) == (2, f"error: {missing} Run it first: gemma-keras run w.yaml\n")
    (finish(here[0], "out", "base") / "model").symlink_to(here[0] / "model")
    code, out = show("base", "--out", "out")
    assert code == 0 and "texts.jsonl:1: " in out and "\n  <bos>[[red cat<eos>]]\n" in out
    assert show("tuned_from_base", "--out", "out")[0] == 0


def test_of_several_seeds_the_first_that_is_finished_is_shown(show, here):
    seeds = ("--set", "seeds={values: [5, 6], from: base}", "--out", "seeded")
    assert show("tuned_from_base", *seeds)[0] == 2
    (finish(here[0], "seeded/seeds/6", "base") / "model").symlink_to(here[0] / "model")
    assert show("tuned_from_base", *seeds)[0] == 0
    # The built-in task's rows are those of the first seed.
    of_five, of_zero = (show("pairs", "--rows", "1", *more)[1] for more in (seeds, ("--set", "seed=0")))
    assert of_five == show("pairs", "--rows", "1", "--set", "seed=5")[1] != of_zero


def test_rows_that_another_stage_collects(show, here):
    code, error = show("collected")
    assert code == 2 and error.startswith("error: the data comes from stage 'pairs', which has not finished in runs/w.")
    place = finish(here[0], "collecting", "pairs")
    (place / "preferences.jsonl").write_text(json.dumps(PAIRS[0]) + "\n")
    code, out = show("collected", "--out", "collecting")
    assert code == 0 and out.startswith("collected: 1 of 1 rows, read as preference;")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["stf"], 2, "error: no stage 'stf' in w.yaml. Did you mean 'sft'? Stages: base, sft, "),
        (["sft", "--rows", "0"], 2, "error: --rows 0: expected 1 or more\n"),
        (["sft", "--set", "stages.sft.data.path=/etc/passwd"], 65, "error: /etc/passwd:1: a file whose name does not"),
        (
            ["reward", "--set", "stages.reward.data.path=rows.jsonl"],
            65,
            "error: rows.jsonl:1: column 'chosen' is missing",
        ),
        (["sft", "--set", "stages.sft.from=base", "--set", "model=null"], 2, "starts from no model"),
    ],
)
def test_what_it_cannot_show(show, arguments, code, message):
    assert show(*arguments)[0] == code
    assert message in show(*arguments)[1]


def test_rows_that_are_set_aside_or_read_in_part_are_told(show, here):
    rows = [{"instruction": "a", "input": "1", "output": "b"}, {"instruction": "", "output": "b"}]
    (here[0] / "mixed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = "{path: mixed.jsonl, prompt: instruction, completion: output, on_bad_row: lenient, disjoint_from: [./model]}"
    code, out = show("sft", "--set", f"stages.sft.data={data}")
    assert code == 0
    bad, notice, left_out = out.splitlines()[-3:]
    assert bad == "1 bad row is set aside, the first mixed.jsonl:2: column 'instruction': the text is empty."
    assert notice.startswith("mixed.jsonl:1: column 'input' says more than nothing and is left out.")
    assert left_out.endswith("model learned from is left out by the run, and not here")


def test_colors_are_for_terminals(here, show, monkeypatch):
    assert "\x1b" not in show("sft")[1]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert "\x1b[2m<bos><start_of_turn>\x1b[0m\x1b[36muser\n  red cat?\x1b[0m" in show("sft")[1]
    assert "\x1b[1;33m[[\x1b[0m\x1b[32myes\x1b[0m\x1b[2m<end_of_turn>\x1b[0m\x1b[1;33m]]\x1b[0m" in show("sft")[1]
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in show("sft")[1]


def test_nothing_in_a_row_reaches_the_terminal_as_a_command(here):
    assert visible("a\x1b[31mb\n\tc\u202e\x07é") == "a\\x1b[31mb\n\tc\\u202e\\x07é"
    tokenizer = here[1]
    ids = tokenizer.encode("<end_of_turn>\x1b]0;x\x07")
    assert render(tokenizer, ids, [True] * len(ids), colors=False) == "[[<end_of_turn>\\x1b]0;x\\x07]]"


def test_it_loads_nothing_heavy(here):
    code = (
        "import sys\nfrom pipelines.cli import main\nmain(sys.argv[1:])\n"
        "print([name for name in ('keras', 'datasets', 'jax', 'tensorflow', 'torch') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "show", "w.yaml", "sft"], cwd=here[0], capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
