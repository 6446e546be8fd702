"""What a real run, small as it is, says from its first second to its end, and where its model lies."""

import pytest
import stage_fixture

from pipelines import cli
from pipelines.commands import workflows

pytestmark = pytest.mark.once

WORKFLOW = """\
name: first
backend: {backend}
model: {model}
stages:
  sft:
    kind: instruction_tuning
    data: {{path: rows.jsonl}}
    max_length: 48
    batch_size: 4
    epochs: 1
"""


def test_a_stage_says_what_it_does_and_the_run_what_it_learned(tmp_path, backend, capsys):
    stage_fixture.tiny_tuned_model(tmp_path / "tuned")
    rows = (dict(zip(("prompt", "completion"), text.split(": "), strict=True)) for text in stage_fixture.sentences(16))
    stage_fixture.write_jsonl(tmp_path / "rows.jsonl", rows)
    file, out = tmp_path / "w.yaml", tmp_path / "out"
    file.write_text(WORKFLOW.format(backend=backend, model=tmp_path / "tuned/model"))
    assert cli.main(["run", str(file), "--out", str(out), "--in-process"]) == 0
    captured = capsys.readouterr()
    doing = [line.removeprefix("  sft: ") for line in captured.err.splitlines() if line.startswith("  sft: ")]
    bar = next(place for place, line in enumerate(doing) if line.startswith("training: 4/4 (100%)"))
    assert doing[:bar][:5] == [f"loading {backend}", "reading data", "loading weights", "tokenizing", "compiling"]
    assert doing[bar + 1 :] == ["finishing", "saving the model"]
    said = captured.out.splitlines()
    assert said[0].startswith("[1/1] sft (instruction_tuning): on ")
    (losses,) = [line for line in said if line.startswith("loss of sft")]
    assert losses.startswith("loss of sft  from ") and ", held out " in losses and losses.endswith(" tokens")
    assert said[-2:] == [f"model:  {out}/stages/sft/model", f"report: {out}/report.html"]


def test_the_model_that_is_named_is_the_policy_and_not_what_was_trained_after_it(tmp_path):
    for name in ("sft", "policy", "control"):
        (tmp_path / "stages" / name / "model").mkdir(parents=True)
    kinds = {"sft": "instruction_tuning", "policy": "policy_optimization", "control": "instruction_tuning"}
    stages = {name: {"kind": kind, "seconds": 1.0, "peak_memory_gib": 1.0} for name, kind in kinds.items()}
    place = workflows.model_of(tmp_path, {"stages": stages})
    assert place == tmp_path / "stages" / "policy" / "model"
    del stages["policy"]
    assert workflows.model_of(tmp_path, {"stages": stages}) == tmp_path / "stages" / "control" / "model"
    assert workflows.model_of(tmp_path, {"stages": {"reward": {"kind": "reward_modeling"}}}) is None
