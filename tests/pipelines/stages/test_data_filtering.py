"""The filtering stage: rows in, rows out, reasons, the same bytes from any number of processes and after any stop."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from stage_fixture import SCRATCH, make_context, read_jsonl, stage_config, write_jsonl

from gemma_keras import GemmaConfig
from pipelines.data.contents import SeenPrompts
from pipelines.data.examples import load_examples
from pipelines.host.errors import ConfigError, DataError
from pipelines.memory.usage import Sized
from pipelines.schema.base import StageConfig
from pipelines.stages.data_filtering import run as stage
from pipelines.stages.data_filtering.config import DataFiltering
from pipelines.stages.data_filtering.filters.registry import OPTIONS
from pipelines.stages.registry import memory_function
from pipelines.workflow.loading import load

pytestmark = pytest.mark.no_backend
INTERRUPTED = Path(__file__).parents[2] / "fixtures" / "interrupted.py"

ROWS = [
    {"q": "Who are you?", "a": "I am ChatGPT.", "id": 0},
    {"q": "Where do you live?", "a": "Write to ann@example.org.", "id": 1},
    {"q": "Two and two?", "a": "Four.", "id": 2},
    {"q": "TWO and two", "a": "four", "id": 3},
    {"q": "And three?", "a": "five", "id": 4},
]
FILTERS = ["self_identification", {"name": "personal_data", "action": "redact"}, "duplicates"]


def filtered(folder, rows, filters, name="clean", inputs=None, **options):
    """What a stage leaves of some rows: the context, final figures, kept rows, rejected rows."""
    data = options.pop("data", None) or {
        "path": write_jsonl(folder / "web.jsonl", rows), "prompt": "q", "completion": "a",
    }  # fmt: skip
    context = make_context(folder, name, inputs)
    config = stage_config(
        "data_filtering", data=data, use=options.pop("use", "instruction"), filters=filters, **options
    )
    final = stage.run(config, context)
    return context, final, read_jsonl(context.output / "rows.jsonl"), read_jsonl(context.output / "rejected.jsonl")


def test_rows_come_out_in_order_with_the_usual_columns_and_the_others_have_their_reasons(tmp_path):
    context, final, kept, rejected = filtered(tmp_path, ROWS, FILTERS)
    assert kept == [
        {"prompt": "Where do you live?", "completion": "Write to [EMAIL].", "id": 1},
        {"prompt": "Two and two?", "completion": "Four.", "id": 2},
        {"prompt": "And three?", "completion": "five", "id": 4},
    ]
    path = tmp_path / "web.jsonl"
    assert rejected == [
        {"origin": f"{path}:1", "filter": "self_identification", "reason": "another name: ChatGPT",
         "row": {"prompt": "Who are you?", "completion": "I am ChatGPT.", "id": 0}},
        {"origin": f"{path}:4", "filter": "duplicates", "reason": f"the same text: as {path}:3",
         "row": {"prompt": "TWO and two", "completion": "four", "id": 3}},
    ]  # fmt: skip
    assert (final["rows_in"], final["rows_out"], final["bad_rows"]) == (5, 3, 0)
    counts = [(one["name"], one["seen"], one["dropped"], one["changed"], one["reasons"]) for one in final["filters"]]
    assert counts == [
        ("self_identification", 5, 1, 0, {"another name": 1}), ("personal_data", 4, 0, 1, {}),
        ("duplicates", 4, 1, 0, {"the same text": 1}),
    ]  # fmt: skip
    assert final["filters"][1]["found"] == {"email": 1}
    assert final["filters"][0]["examples"][0]["text"] == "Who are you? | I am ChatGPT."
    assert context.warnings == []


def test_a_filter_sees_what_those_before_it_leave(tmp_path):
    mails = [{"q": f"{name}@example.org?", "a": "Yes."} for name in ("ann", "bob")]
    redact = {"name": "personal_data", "action": "redact"}
    assert len(filtered(tmp_path, mails, ["duplicates", redact], "a")[2]) == 2
    assert len(filtered(tmp_path, mails, [redact, "duplicates"], "b")[2]) == 1
    # What is dropped later was kept by `duplicates`, and what was dropped before it is not remembered.
    rows = [{"q": "Hi", "a": "I am Claude."}, {"q": "hi", "a": "I am Claude!"}]
    _, final, kept, _ = filtered(tmp_path, [*rows, *ROWS[2:3]], ["duplicates", "self_identification"], "c")
    assert [one["dropped"] for one in final["filters"]] == [1, 1] and len(kept) == 1
    _, final, _, _ = filtered(tmp_path, [*rows, *ROWS[2:3]], ["self_identification", "duplicates"], "d")
    assert [one["dropped"] for one in final["filters"]] == [2, 0]


def test_the_report_shows_no_personal_data(tmp_path):
    _, final, _, rejected = filtered(tmp_path, ROWS, ["personal_data"])
    assert final["filters"][0]["examples"] == [
        {"origin": f"{tmp_path / 'web.jsonl'}:2", "reason": "personal: email", "text": ""}
    ]
    assert rejected[0]["row"]["completion"] == "Write to ann@example.org."


def test_bad_rows_stand_among_the_rejected_ones_or_stop_the_stage(tmp_path):
    path = tmp_path / "web.jsonl"
    path.write_text('{"q": "a", "a": "b"}\n{"q": 1}\nno json\n{"q": "c", "a": "d"}\n', encoding="utf-8")
    data = {"path": str(path), "prompt": "q", "completion": "a"}
    context, final, kept, rejected = filtered(
        tmp_path, None, ["duplicates"], data={**data, "on_bad_row": "lenient"}
    )  # fmt: skip
    assert (final["rows_in"], final["bad_rows"], len(kept)) == (2, 2, 2)
    assert [(row["origin"], row["filter"]) for row in rejected] == [(f"{path}:2", None), (f"{path}:3", None)]
    assert context.warnings == ["2 bad rows set aside, see rejected.jsonl"]
    with pytest.raises(DataError, match=r"web\.jsonl:2: column 'q': expected text, got int"):
        filtered(tmp_path, None, ["duplicates"], "strict", data=data)


def test_much_that_is_dropped_is_warned_of_and_all_is_an_error(tmp_path):
    rows = [ROWS[0], ROWS[0], ROWS[2]]
    assert filtered(tmp_path, rows, ["self_identification"])[0].warnings == [
        "self_identification dropped 2 of 3 rows, 2 of them for: another name"
    ]
    message = r"web\.jsonl:1: no row is left of 2: 2 by self_identification \(0 bad ones\)\. Expected at least one; see"
    with pytest.raises(DataError, match=message):
        filtered(tmp_path, rows[:2], ["self_identification"], "none")


def many(count):
    """Rows that filters have something to say of, and that are near one another."""
    words = [f"word{number}" for number in range(50)]
    rows = []
    for number in range(count):
        text = " ".join(words[(number * 7 + i) % 50] for i in range(30 + number % 5))
        text += f" x{number}" * (number % 3) + " write to ann@example.org" * (number % 4 == 0)
        rows.append({"q": f"Q {number % 40}", "a": text + " I am ChatGPT." * (number % 10 == 9), "id": number})
    return rows


EVERYTHING = [
    "quality", {"name": "language", "confidence": 0.99}, "self_identification",
    {"name": "personal_data", "action": "redact"}, {"name": "duplicates", "near": 0.8},
    {"name": "decontaminate", "against": [{"name": "mine", "path": "mine.jsonl"}]},
]  # fmt: skip


def test_any_number_of_processes_and_any_size_of_chunks_give_the_same_bytes(tmp_path, monkeypatch):
    write_jsonl(tmp_path / "mine.jsonl", [{"q": many(1)[0]["a"]}])

    def digests(name, **options):
        context, final, kept, rejected = filtered(tmp_path, many(200), EVERYTHING, name, **options)
        assert 5 < len(kept) < 150 and len({row["filter"] for row in rejected}) >= 3
        files = [(context.output / file).read_bytes() for file in ("rows.jsonl", "rejected.jsonl")]
        return [hashlib.sha256(file).hexdigest() for file in files], json.dumps(final)

    one = digests("one")
    monkeypatch.setattr(stage, "CHUNK_ROWS", 16)
    assert digests("small") == one
    assert digests("three", processes=3) == one


def test_rows_of_a_stage_go_through_and_so_does_what_it_had_learned_from(tmp_path):
    folder = tmp_path / "preferences"
    folder.mkdir()
    ids = {"prompt_ids": [2], "chosen_ids": [3], "rejected_ids": [4], "content_hash": "c0"}
    write_jsonl(
        folder / "preferences.jsonl",
        [
            {"prompt": "A?", "chosen": "I am Siri.", "rejected": "B", **ids},
            {"prompt": "C?", "chosen": "D", "rejected": "I am Siri.", **ids},
            {"prompt": "E?", "chosen": "to ann@example.org", "rejected": "F", **ids},
        ],
    )
    seen = SeenPrompts(frozenset(["c1"]), frozenset(["e1"]))
    seen.write(folder)
    context, _, kept, _ = filtered(
        tmp_path, None, FILTERS, use="preference", data="preferences", inputs={"preferences": folder}
    )
    assert kept[0] == {"prompt": "C?", "chosen": "D", "rejected": "I am Siri.", **ids}
    assert kept[1] == {"prompt": "E?", "chosen": "to [EMAIL]", "rejected": "F", "content_hash": "c0"}
    assert SeenPrompts.read(context.output) == seen
    inputs = {"clean": context.output}
    pairs = load_examples("clean", "preference", tmp_path, inputs)
    assert [(pair.chosen, pair.chosen_ids, pair.content) for pair in pairs] == [
        ("D", [3], "c0"), ("to [EMAIL]", None, "c0"),
    ]  # fmt: skip
    assert [one.prompt for one in load_examples("clean", "prompt", tmp_path, inputs)] == ["C?", "E?"]


def test_prompts_that_a_model_has_learned_from_are_left_out(tmp_path):
    earlier = tmp_path / "earlier"
    (earlier / "model").mkdir(parents=True)
    data = {"path": write_jsonl(tmp_path / "web.jsonl", ROWS), "prompt": "q", "completion": "a"}
    examples = load_examples(stage_config("data_filtering", data=data, use="instruction", filters=["quality"]).data,
                             "instruction", tmp_path)  # fmt: skip
    SeenPrompts.of(stage.prompt_hashes(one) for one in examples[:2]).write(earlier / "model")
    data["disjoint_from"] = ["earlier"]
    context, final, kept, _ = filtered(tmp_path, None, ["quality"], data=data, inputs={"earlier": earlier})
    assert final["rows_in"] == 3 and [row["id"] for row in kept] == [2, 3, 4]
    assert read_jsonl(context.output / "metrics.jsonl") == [{"step": 0, "left_out_rows": 2}]


def test_rows_of_the_built_in_task_keep_what_it_says_of_their_contents(tmp_path):
    data = {"task": "small_world", "split": "sft", "size": 20}
    context, final, kept, _ = filtered(tmp_path, None, ["duplicates"], data=data)
    assert final["rows_out"] == len(kept) > 5 and set(kept[0]) >= {"prompt", "completion", "content_hash", "answer"}
    again = load_examples("clean", "instruction", tmp_path, {"clean": context.output})
    assert [one.content for one in again] == [row["content_hash"] for row in kept]


WORKFLOW = """
name: filtering
model: {{config: {{family: gemma3, num_layers: 1, num_query_heads: 1, num_key_value_heads: 1, head_dim: 8, hidden_dim:
  8, intermediate_dim: 8}}, tokenizer: {{vocabulary_size: 300}}}}
stages:
  clean:
    kind: data_filtering
    data: {{path: web.jsonl, prompt: q, completion: a}}
    use: {use}
    filters: [self_identification, {{name: personal_data, action: redact}}, {{name: duplicates, near: 0.8}}]
"""


def write_workflow(folder, more="", use="instruction"):
    write_jsonl(folder / "web.jsonl", many(800))
    (folder / "w.yaml").write_text(WORKFLOW.format(use=use) + more, encoding="utf-8")
    return folder / "w.yaml"


def command(folder, *before):
    environment = {**os.environ, "PYTHONPATH": str(Path(stage.__file__).parents[3]), "PYTHONHASHSEED": str(len(before))}
    arguments = [*before, "run", "w.yaml", "--out", "run", "--in-process"]
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=240
    )


@pytest.mark.fault("a stage killed in its middle ends with equal bits")
def test_a_stage_that_was_killed_goes_on_in_a_new_process_and_leaves_the_same_bytes(tmp_path):
    def left(folder):
        output = folder / "run" / "stages" / "clean"
        final = json.loads((output / "final.json").read_text())
        return [(output / name).read_bytes() for name in ("rows.jsonl", "rejected.jsonl")], final["filters"]

    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        write_workflow(tmp_path / name)
    found = command(tmp_path / "whole", "-m", "pipelines")
    assert found.returncode == 0, found.stderr
    found = command(tmp_path / "killed", str(INTERRUPTED), "clean:2")  # of four chunks
    assert found.returncode == -signal.SIGKILL, found.stderr
    found = command(tmp_path / "killed", "-m", "pipelines")
    assert found.returncode == 0 and "going on at " in found.stdout, found.stdout + found.stderr
    one, other = left(tmp_path / "whole"), left(tmp_path / "killed")
    assert str(one).replace("whole", "killed") == str(other)


def test_any_stage_reads_the_rows_by_the_name_of_the_stage(tmp_path):
    reads = (
        "  base: {kind: pretraining, data: {task: small_world, split: pretraining, size: 9}}\n"
        "  sft: {kind: instruction_tuning, from: base, data: clean}\n"
        "  pairs: {kind: preference_collection, from: sft, data: clean, rater: exact_answer}\n"
        "  again: {kind: data_filtering, data: pairs, use: preference, filters: [duplicates]}\n"
        "  reward: {kind: reward_modeling, from: sft, data: again}\n"
    )
    assert load(write_workflow(tmp_path, reads)).workflow.stages["reward"].data == "again"


@pytest.mark.parametrize(
    ("use", "more", "message"),
    [
        ("prompt", "  sft: {kind: instruction_tuning, data: clean}\n",
         "stage 'clean' leaves rows with `use: prompt`, and instruction_tuning reads each as instruction; expected "
         "`use: instruction` there"),
        ("instruction", "  base: {kind: pretraining, data: clean}\n", "and pretraining reads each as text"),
        ("instruction", "  reward: {kind: reward_modeling, data: clean}\n",
         "and reward_modeling reads each as preference"),
        ("instruction", "  p: {kind: preference_collection, data: clean, rater: gold}\n  r: {kind: "
         "policy_optimization, data: clean, reward: gold}\n", "the gold reward scores the built-in task only"),
        ("instruction", "  more: {kind: data_filtering, data: claen, use: prompt, filters: [duplicates]}\n",
         "no stage 'claen'. Did you mean 'clean'?"),
    ],
)  # fmt: skip
def test_rows_of_another_use_are_refused_before_anything_runs(tmp_path, use, more, message):
    with pytest.raises(ConfigError) as caught:
        load(write_workflow(tmp_path, more, use))
    assert message in str(caught.value)


def test_an_unknown_filter_is_named_with_those_that_there_are(tmp_path):
    path = write_workflow(tmp_path)
    for before, after in (("[self_identification,", "[toxicty,"), ("{name: duplicates,", "{name: duplicate,")):
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace(before, after), encoding="utf-8")
        with pytest.raises(ConfigError) as caught:
            load(path)
        path.write_text(text, encoding="utf-8")
        hint = (
            "'toxicty'. Did you mean 'toxicity'?" if "toxicty" in after else "'duplicate'. Did you mean 'duplicates'?"
        )
        assert "expected quality or language or personal_data or " in str(caught.value) and hint in str(caught.value)


def problems(**options):
    data = {"path": "x.jsonl"}
    config = stage_config("data_filtering", **{"data": data, "use": "text", "filters": ["quality"], **options})
    return [f"{'.'.join(map(str, path))}: {message}" for path, message in config.problems()]


def test_what_the_stage_itself_refuses():
    assert problems(filters=["quality", "duplicates", {"name": "quality", "least_words": 3}]) == [
        "filters.2: quality is named twice; expected each filter once, with all its options"
    ]
    assert problems(filters=[{"name": "toxicity", "classifier": "reward"}], processes=2) == [
        "processes: 2 processes would hold the model that scores toxicity as often; expected 1"
    ]
    assert problems(filters=["toxicity"], processes=2) == []
    assert DataFiltering.leaves is not StageConfig.leaves


def test_memory_is_that_of_a_reward_model_which_scores_toxicity():
    sized = Sized("torch", lambda name: GemmaConfig(vocabulary_size=300, **SCRATCH["config"]))

    def needs(*filters):
        config = stage_config("data_filtering", data={"path": "x.jsonl"}, use="text", filters=[*filters])
        return memory_function("data_filtering")(config, sized)

    assert needs("quality", "toxicity") == []
    (found,) = needs({"name": "toxicity", "classifier": "reward"})
    assert found.doing == "scoring toxicity" and found.frozen > 4 * 300 * 16  # the embedding alone, in float32


def test_of_a_folder_of_benchmarks_those_count_that_are_compared_with():
    filters = ["quality", {"name": "decontaminate", "suite": ["gsm8k", "mbpp"], "data": "d"}]
    config = stage_config("data_filtering", data={"path": "x.jsonl"}, use="text", filters=filters)
    assert config.parts_read(("filters", 1, "data")) == ["gsm8k", "evaluation/gsm8k", "mbpp", "evaluation/mbpp"]
    assert config.parts_read(("data", "path")) is None


def test_the_page_names_every_filter_and_every_option(repository):
    page = (repository / "docs/data_filtering.md").read_text(encoding="utf-8")
    options = dict(re.findall(r"^\| `(\w+)` \| (`.+) \|$", page.partition("| filter | options |")[2], re.MULTILINE))
    assert list(options) == list(OPTIONS)
    for name, one in OPTIONS.items():
        assert page.count(f"| `{name}` |") == 2
        for field in set(one.model_fields) - {"name"}:
            assert re.search(rf"`{field}\b", options[name]), (name, field)
