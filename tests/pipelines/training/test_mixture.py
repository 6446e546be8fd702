"""Several sources in shares that change on the way: which rows each update sees."""

import numpy as np
import pytest

from pipelines.host.errors import DataError
from pipelines.stages.instruction_tuning.config import InstructionTuning
from pipelines.training.batch_order import batch_rows
from pipelines.training.mixture import Mixture, concatenated

pytestmark = pytest.mark.no_backend


def options(weights=(3, 1), mixture=None, **settings):
    data = [
        {"name": name, "path": f"{name}.jsonl", "weight": weight} for name, weight in zip("ab", weights, strict=True)
    ]
    return InstructionTuning.model_validate(
        {"kind": "instruction_tuning", "data": data, "mixture": mixture, **{"batch_size": 4, **settings}}
    )


def mixture_of(config, sizes=(30, 10)):
    return Mixture.of(config, np.repeat([0, 1], sizes), np.zeros(0, np.int64))


def test_sources_take_turns_by_their_weights():
    # Due at (j + 1/2) / share: a at 2/3, 2, 10/3, 14/3, 6, 22/3; b at 2, 6, 10.
    config = options()
    order = mixture_of(config).order(7, "sft", config)
    assert "".join("ab"[int(row >= 30)] for row in order[:8]) == "aabaaaba"
    shares = np.cumsum(order >= 30) - np.arange(1, 41) / 4
    assert np.abs(shares).max() <= 0.75 and len(order) == 40


def test_weights_change_with_the_update_that_a_phase_begins_at():
    config = options(mixture=[{"from": 0.75, "weights": {"a": 1, "b": 3}}])
    order = mixture_of(config).order(7, "sft", config)
    is_b = order >= 30
    assert is_b[:32].sum() == 8 and is_b[32:].sum() == 6  # 10 updates of 4: the phase begins with the ninth, number 8


def test_a_source_goes_on_where_it_was_and_begins_anew_when_it_is_through():
    config = options(mixture=[{"from": 0.5, "weights": {"a": 0, "b": 1}}])
    order = mixture_of(config).order(7, "sft", config)
    of_b, of_a = order[order >= 30], order[order < 30]
    assert len(of_b) == 5 + 20 and len(set(of_a)) == len(of_a) == 15
    assert sorted(of_b[:10]) == sorted(of_b[10:20]) == list(range(30, 40))
    assert of_b[:10].tolist() != of_b[10:20].tolist()


def test_the_order_of_a_source_depends_on_seed_stage_and_its_own_name_alone():
    config = options(weights=(1, 1), max_steps=5)
    of_b = [row - 30 for row in mixture_of(config).order(7, "sft", config) if row >= 30]
    assert of_b == [row - 50 for row in mixture_of(config, (50, 10)).order(7, "sft", config) if row >= 50]
    for seed, stage in ((8, "sft"), (7, "more")):
        assert of_b != [row - 30 for row in mixture_of(config).order(seed, stage, config) if row >= 30]
    twins = Mixture.of(config, np.repeat([0, 1], (10, 10)), np.zeros(0, np.int64)).order(7, "sft", config)
    assert [row for row in twins if row < 10] != [row - 10 for row in twins if row >= 10]


@pytest.mark.parametrize("settings", [{}, {"epochs": 0.3}, {"max_steps": 3}, {"epochs": 2.1, "batch_size": 7}])
def test_as_many_rows_as_of_one_data_set_of_that_size(settings):
    config = options(mixture=[{"from": 0.9, "weights": {"a": 1, "b": 1}}], **settings)
    order = mixture_of(config).order(7, "sft", config)
    one = [len(np.concatenate(update)) for update in batch_rows(7, "sft", [5] * 40, config)]
    mixed = [len(np.concatenate(update)) for update in batch_rows(7, "sft", [5] * 40, config, order)]
    assert one == mixed and sum(mixed) == len(order)


def test_what_was_seen_is_counted_by_phase_and_source():
    config = options(mixture=[{"from": 0.75, "weights": {"a": 0, "b": 2}}])
    mixture, lengths = mixture_of(config), [2] * 30 + [5] * 10
    order = mixture.order(7, "sft", config)
    first, last = mixture.seen(order, lengths, config, steps=9)  # of ten: patience ended it
    assert (first["from"], first["updates"]) == (0, 8) and (last["from"], last["updates"]) == (0.75, 1)
    assert first["sources"] == [
        {"name": "a", "share": 0.75, "rows": 24, "tokens": 48, "epochs": 0.8},
        {"name": "b", "share": 0.25, "rows": 8, "tokens": 40, "epochs": 0.8},
    ]
    assert last["sources"] == [
        {"name": "a", "share": 0, "rows": 0, "tokens": 0, "epochs": 0},
        {"name": "b", "share": 1, "rows": 4, "tokens": 20, "epochs": 0.4},
    ]
    assert [phase["updates"] for phase in mixture.seen(order, lengths, config, steps=3)] == [3, 0]


def test_a_source_without_a_row_is_an_error_only_where_it_weighs_something():
    with pytest.raises(DataError, match=r"b:1: no row of this source is left.* lower heldout_fraction"):
        mixture_of(options(), (30, 0))
    with pytest.raises(DataError, match="a:1: no row"):
        mixture_of(options(weights=(0, 1), mixture=[{"from": 0.5, "weights": {"a": 1, "b": 1}}]), (0, 9))
    config = options(weights=(0, 1))
    assert (mixture_of(config, (0, 9)).order(7, "sft", config) < 9).all()


def test_one_data_set_is_no_mixture():
    config = InstructionTuning.model_validate({"kind": "instruction_tuning", "data": "best"})
    rows, source_of = concatenated({"": ["x", "y"]})
    assert Mixture.of(config, source_of, source_of) is None and rows == ["x", "y"]


@pytest.mark.parametrize(
    ("settings", "place", "message"),
    [
        ({"data": "best", "mixture": [{"from": 0.5, "weights": {}}]}, "mixture", "weighs sources; expected data: "),
        ({"weights": (0, 0)}, "data", "every weight is 0"),
        ({"mixture": [{"from": 0.5, "weights": {"a": 1}}]}, "mixture.0.weights", "no weight for b; expected one of"),
        ({"mixture": [{"from": 0.5, "weights": {"a": 0, "b": 0}}]}, "mixture.0.weights", "every weight is 0"),
        (
            {"mixture": [{"from": 0.5, "weights": {"a": 1, "b": 1, "bb": 1}}]},
            "mixture.0.weights",
            "no source 'bb' in `data`. Did you mean 'b'? Sources: a, b",
        ),
        (
            {"mixture": [{"from": one, "weights": {"a": 1, "b": 1}} for one in (0.5, 0.5)]},
            "mixture.1.from",
            "0.5 is not after 0.5; expected rising ones",
        ),
    ],
)
def test_what_is_wrong_between_sources_and_phases(settings, place, message):
    (found,) = options(**settings).problems()
    assert ".".join(map(str, found[0])) == place and message in found[1]


def test_two_sources_of_one_name():
    data = [{"name": "a", "path": "a.jsonl"}, {"name": "a", "stage": "best"}]
    config = InstructionTuning.model_validate({"kind": "instruction_tuning", "data": data})
    assert list(config.problems()) == [(("data", 1, "name"), "two sources are called 'a'; expected a name for each")]
