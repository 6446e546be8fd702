"""The benchmark's table and figure: bests, the right way round, ties, settings; what stands around them stays."""

import json

import pytest

from benchmarks import chart, table
from benchmarks.measuring import Measurement

pytestmark = pytest.mark.no_backend

MACHINE = {
    "cores": 2,
    "processor": "abacus",
    "memory_gib": 24.0,
    "python": "3.11",
    "versions": {"keras": "3.15.1"},
    "date": "2026-01-02",
    "revision": "abc",
}
EMPTY = {"runs": [], "machine": {}}


def measured(library, seconds, backend="torch", case="generate_16", **changes):
    values = {"first_call": 3.0, "seconds": seconds, "memory_gib": 1.25, **changes}
    return Measurement(case, backend, library, **values)


def rows(*items):
    text = table.render([table.merge(EMPTY, list(items), MACHINE)])
    lines = [line for line in text.splitlines() if line.startswith(("| torch", "| tensorflow"))]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def test_table_says_who_is_faster_and_by_how_much():
    # 16 rows of 128 new tokens a step; bests 1 and 4, medians 2 and 5 seconds.
    assert rows(measured("ours", [2.0, 1.0, 9.0]), measured("transformers", [4.0, 5.0, 6.0])) == [
        ["torch", "gemma_keras", "1", "2 (1.5 to 5.5)", "2,048", "", "3.0", "1.25"],
        ["torch", "transformers", "4", "5 (4.5 to 5.5)", "512", "4.00 (2.50)", "3.0", "1.25"],
    ]


@pytest.mark.parametrize(
    "seconds, expected",
    [(1.04, "1.04, tie (1.04)"), (0.96, "0.96, tie (0.96)"), (1.06, "1.06 (1.06)"), (0.94, "0.94 (0.94)")],
)
def test_less_than_five_percent_is_a_tie(seconds, expected):
    assert rows(measured("ours", [1.0]), measured("transformers", [seconds]))[1][5] == expected


def test_each_sides_faster_setting_counts_and_a_variant_is_a_row_of_its_own():
    found = rows(
        *[measured(f"ours@{setting}", [best], "tensorflow") for setting, best in (("graph", 3.0), ("xla", 2.0))],
        *[measured(f"keras_hub@{setting}", [best], "tensorflow") for setting, best in (("graph", 5.0), ("xla", 8.0))],
        measured("ours@float32", [7.0], "tensorflow"),
    )
    assert [(row[1], row[5]) for row in found] == [
        ("gemma_keras, graph", ""),
        ("gemma_keras, XLA", ""),
        ("KerasHub, graph", "2.50 (2.50)"),
        ("KerasHub, XLA", ""),
        ("gemma_keras, float32", "3.50 (3.50)"),
    ]


def test_parts_are_compared_with_their_like():
    odd = {"case": "train_lora_odd", "part": "last, smaller batch"}
    found = rows(
        measured("ours", [1.0], case="train_lora_odd"),
        measured("transformers", [2.0], case="train_lora_odd"),
        measured("ours", [0.5], **odd),
        measured("transformers", [0.25], **odd),
    )
    assert [(row[1], row[4], row[5]) for row in found] == [
        ("gemma_keras", "2,048", ""),
        ("transformers", "1,024", "2.00 (2.00)"),
        ("gemma_keras, last, smaller batch", "", ""),
        ("transformers, last, smaller batch", "", "0.50 (0.50)"),
    ]


def test_table_names_a_failure_and_what_does_not_fit():
    failed = Measurement("generate_16", "torch", "keras_hub", error="ended with status 1: a|b")
    large = Measurement("generate_16", "torch", "trl", error="does not fit into 16 GiB", does_not_fit=True)
    text = table.render([table.merge(EMPTY, [measured("ours", [1.0]), failed, large], MACHINE)])
    assert "| torch | KerasHub | failed: ended with status 1: a\\|b |" in text
    assert "| torch | TRL | does not fit into 16 GiB |" in text


def test_the_head_has_the_machines_peak():
    peaks = {"jax": {"float32": 201.4, "bfloat16": 380.0, "read": 15.63}}
    text = table.render([table.merge(EMPTY, [measured("ours", [1.0])], {**MACHINE, "peak": peaks})])
    assert "float32 and bfloat16: jax 201 and 380; reading 256 MiB by a product with a vector, GB/s: jax 15.6." in text


def test_merge_replaces_one_case_on_one_backend_only(tmp_path):
    stored = table.merge(EMPTY, [measured("ours", [1.0]), measured("ours", [2.0], backend="jax")], MACHINE)
    stored["runs"].append({"case": "train", "backend": "jax", "engine": "ours", "seconds": [1.0]})  # an earlier form
    (tmp_path / "results.json").write_text(json.dumps(stored))
    merged = table.merge(table.read(tmp_path / "results.json"), [measured("ours", [3.0])], MACHINE)
    assert [(item["backend"], item["seconds"]) for item in merged["runs"]] == [("jax", [2.0]), ("torch", [3.0])]


def test_each_machine_has_a_file_and_tables_of_its_own_the_latest_first(tmp_path):
    for date, machine in (("2026-01-02", MACHINE), ("2026-01-03", {**MACHINE, "cores": 4})):
        results = table.merge(EMPTY, [measured("ours", [1.0])], {**machine, "date": date})
        (tmp_path / table.file_name(machine)).write_text(json.dumps(results))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["abacus_2_cores.json", "abacus_4_cores.json"]
    (tmp_path / "none.json").write_text(json.dumps(EMPTY))
    text = table.render(table.read_all(tmp_path))
    heads = [line for line in text.splitlines() if line.startswith("### ")]
    assert heads == ["### abacus, 4 cores", "### abacus, 2 cores"] and text.count("\n#### Generation") == 2


def test_write_keeps_what_stands_around_the_table(tmp_path):
    path = tmp_path / "README.md"
    path.write_text(f"# Title\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    table.write(path, "new")
    assert path.read_text() == f"# Title\n{table.BEGIN}\n\nnew\n\n{table.END}\nafter\n"
    path.write_text("no markers")
    with pytest.raises(ValueError, match="once each"):
        table.write(path, "new")


def test_the_figure_has_the_fastest_peer_of_each_backend(tmp_path, capsys):
    items = [
        measured("ours", [1.0, 3.0]), measured("keras_hub", [4.0]), measured("transformers", [2.0, 9.0]),
        measured("ours@graph", [4.0], "tensorflow", "train"), measured("ours@xla", [5.0], "tensorflow", "train"),
        measured("keras_hub@graph", [8.0], "tensorflow", "train"),
        measured("keras_hub@xla", [3.0], "tensorflow", "train"),
        measured("ours@float32", [1.0], "tensorflow", "train"), measured("ours", [1.0], "torch", "reward"),
    ]  # fmt: skip
    results = table.merge(EMPTY, items, MACHINE)
    found = chart.ratios(results)
    assert found == {"train": [("tensorflow", "KerasHub", 0.75)], "generate_16": [("torch", "transformers", 2.0)]}
    bars = [bar.get_width() for group in chart.draw(found, "abacus").axes[0].containers for bar in group]
    assert bars == [0.75, 2.0]
    (tmp_path / "results.json").write_text(json.dumps(results))
    command = ["--results", str(tmp_path), "--target", str(tmp_path / "speed.png")]
    assert chart.main(command) == 0
    assert (tmp_path / "speed.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "results.json").write_text(json.dumps(EMPTY))
    assert chart.main(command) == 1 and "run python -m benchmarks.run" in capsys.readouterr().err
