"""The table of log-probabilities in half precision: exact on both paths, and consistent on a tiny model."""

import re

import pytest
from policy_fixture import world_model

from benchmarks import half_precision

pytestmark = pytest.mark.once


def columns(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_head_is_exact_and_rounded_logits_are_not(monkeypatch):
    monkeypatch.setattr(half_precision, "VOCABULARY", 4096)
    dense, chunked, rounded = [columns(line) for line in list(half_precision.head_table())[2:]]
    assert [dense[1], chunked[1]] == ["dense", "chunked"]
    for row in (dense, chunked):
        assert float(row[2]) < 1e-4 and row[3] == "0 of 128"
    assert float(rounded[2]) > 1e-2 and int(rounded[3].split()[0]) > 10


def test_ratios_of_a_model(monkeypatch, tmp_path):
    monkeypatch.setattr(half_precision, "LENGTHS", (4,))
    folder = world_model(tmp_path / "sft") / "model"
    rows = [columns(line) for line in list(half_precision.model_table(str(folder)))[2:]]
    assert [row[2] for row in rows] == [
        "training pass", "scorer, one sequence at a time", "sampler", "(scorer in float32)",
    ]  # fmt: skip
    for row in rows:
        assert all(float(number) < 0.1 for number in re.findall(r"\d\.\de[+-]\d+", " ".join(row[3:])))
    with pytest.raises(SystemExit):
        half_precision.main(["model"])


def test_rounded_samplers_lie_near_a_model(monkeypatch, tmp_path):
    monkeypatch.setattr(half_precision, "LENGTHS", (4, 4))
    monkeypatch.setattr(half_precision, "ROLLOUTS", 8)
    folder = world_model(tmp_path / "sft", scale=4.0) / "model"
    rows = [columns(line) for line in list(half_precision.rollout_table(str(folder)))[2:]]
    assert [row[1] for row in rows] == ["bfloat16", "int8"]
    for row in rows:
        k3, k1 = map(float, row[2].split(", "))
        mean, largest = map(float, row[3].split(", "))
        assert 0 < k3 < 0.01 and abs(k1) <= mean <= largest < 0.5 and row[4] == "0.00%"
