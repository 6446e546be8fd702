"""A judge behind an endpoint, killed in its middle: what it has answered is paid for, and nobody asks it again."""

import dataclasses
import json
import os

import pytest
from openai_stub import endpoint, with_labels

pytestmark = [pytest.mark.slow, pytest.mark.fault("a judge's answers that were paid for are not asked for again")]
ROWS = 15


def answer(body):
    """A label by the question alone, so that every order of asking has the same answers."""
    text = body["messages"][0]["content"]
    return with_labels(A=-1.0, B=-1.0 - (sum(text.encode()) % 7 - 3) / 10)


def test_a_judge_is_asked_each_question_once(make_chain, tmp_path):
    rows = [{"prompt": f"p{i}", "chosen": "x" * (i % 4 + 1), "rejected": "y" * (i % 3 + 1)} for i in range(ROWS)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with endpoint(default=answer) as (url, requests):
        workflow = tmp_path / "judge.yaml"
        judge = {"base_url": url, "model": "m", "at_once": 2, "key_variable": "JUDGE_KEY"}
        stages = {"judged": {"kind": "side_by_side", "data": {"path": "pairs.jsonl"}, "judge": judge}}
        workflow.write_text(json.dumps({"name": "judge", "seed": 3, "stages": stages}))
        environment = {**os.environ, **make_chain(stages=1).environment, "JUDGE_KEY": "sk-secret"}
        whole = dataclasses.replace(
            make_chain(stages=1), folder=tmp_path / "whole", workflow=workflow, environment=environment
        )
        whole.finish("--in-process")
        assert len(requests) == 2 * ROWS
        run = dataclasses.replace(whole, folder=tmp_path / "killed")
        for place in ("judged:3", "judged:2"):
            run.interrupt(place)
        assert len(requests) == 2 * ROWS + 2 * 5
        assert "going on at " in run.finish("--in-process")
        assert len(requests) == 4 * ROWS
        same = run.results(["judged"]) == whole.results(["judged"])
        # Another key of the stage: the answers of the finished one are known.
        stages["judged"]["samples_kept"] = 3
        workflow.write_text(json.dumps({"name": "judge", "seed": 3, "stages": stages}))
        whole.finish("--in-process")
        assert len(requests) == 4 * ROWS and len(whole.rows("stages/judged/samples.jsonl")) == 3
    assert same
    written = [path for path in tmp_path.rglob("*") if path.is_file() and b"sk-secret" in path.read_bytes()]
    assert written == []
