"""A stage learns from rows of other programs' shapes, and stops at what `validate` refuses, with the same words."""

import pytest
from stage_fixture import make_context, stage_config, tiny_tuned_model, write_jsonl

from pipelines import cli
from pipelines.host.errors import DataError
from pipelines.stages.instruction_tuning import run as instruction_tuning

TURN = {"role": "user", "content": [{"type": "text", "text": "red "}, {"type": "text", "text": "cat"}]}
SHAPES = [
    {"instruction": "swap", "input": "red cat", "output": "cat red"},
    {"conversations": [{"from": "human", "value": "one two"}, {"from": "gpt", "value": "two one"}]},
    {"messages": [TURN, {"role": "assistant", "content": "cat red"}]},
    {"prompt": "sun moon", "completion": "moon sun"},
]
CALL = {"messages": [TURN, {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "clock"}}]}]}


def tune(folder, rows):
    data = {"path": write_jsonl(folder / "rows.jsonl", rows)}
    context = make_context(folder, "sft", inputs={"tuned": tiny_tuned_model(folder / "tuned")})
    settings = {"from": "tuned", "max_length": 64, "batch_size": 4, "max_steps": 1, "heldout_fraction": 0.25}
    return instruction_tuning.run(stage_config("instruction_tuning", data=data, **settings), context)


def validate(folder, capsys):
    stage = f"{{kind: instruction_tuning, from: {folder / 'tuned'}, data: {{path: rows.jsonl}}, max_length: 64}}"
    (folder / "w.yaml").write_text(f"name: w\nstages:\n  sft: {stage}\n")
    code = cli.main(["validate", str(folder / "w.yaml")])
    return code, capsys.readouterr().err


@pytest.mark.once
def test_every_shape_trains_and_a_tool_call_stops(tmp_path, capsys):
    figures = tune(tmp_path, SHAPES)
    assert (figures["examples"], figures["heldout_examples"], figures["dropped_rows"]) == (3, 1, 0)
    assert validate(tmp_path, capsys) == (0, "")
    with pytest.raises(DataError) as caught:
        tune(tmp_path, [*SHAPES, CALL])
    assert str(caught.value).startswith(f"{tmp_path}/rows.jsonl:5: column 'messages', turn 2: a tool is called")
    code, error = validate(tmp_path, capsys)
    assert code == 65 and error.startswith(f"error: {caught.value} Mend them, or set them aside: ")


def test_a_dropped_input_is_in_the_report(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", SHAPES[:1])
    data = {"path": path, "prompt": "instruction", "completion": "output"}
    context = make_context(tmp_path, "sft")
    examples = context.examples(stage_config("instruction_tuning", data=data).data, "instruction")
    assert examples[0].prompt == "swap"
    assert context.warnings[0].startswith(f"{path}:1: column 'input' says more than nothing and is left out.")
