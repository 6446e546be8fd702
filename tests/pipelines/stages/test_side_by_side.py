"""Side by side as a stage: sets, orders, people's ratings and rows with a known choice, with rules and tiny models."""

import pytest
from policy_fixture import world_model
from stage_fixture import make_context, read_jsonl, stage_config, write_jsonl

from pipelines.stages.side_by_side import run as side_by_side

pytestmark = pytest.mark.once

DATA = {"task": "small_world", "split": "heldout", "size": 10}
OPTIONS = {"max_new_tokens": 6, "max_length": 96, "batch_size": 8, "samples_kept": 3}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    return {name: world_model(folder / name, seed=seed, scale=4.0) for name, seed in (("sft", 3), ("policy", 4))}


def judge(folder, inputs, **options):
    settings = {"compare": ["sft", "policy"], "data": DATA, "judge": "longest", **OPTIONS, **options}
    context = make_context(folder, "judged", inputs=inputs)
    return side_by_side.run(stage_config("side_by_side", **settings), context), context


def test_it(inputs, tmp_path):
    final, context = judge(tmp_path, inputs)
    print(final)
    final, context = judge(tmp_path, inputs, judge={"model": "sft", "chat_template": True})
    print(final)
    print(context.warnings)
    final, context = judge(
        tmp_path, inputs, judge={"model": "sft", "chat_template": False}, answer="reasoning", verdict_tokens=16
    )
    print(final)
    print(read_jsonl(context.output / "verdicts.jsonl")[:2])
