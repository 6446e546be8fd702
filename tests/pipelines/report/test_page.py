"""The summary and the report of a made-up run: every section, every figure, nothing from outside, nothing executed."""

import json
import pathlib
import re
import subprocess
import sys
import xml.etree.ElementTree

import pytest
import report_fixture as fixture
from report_page import Page, written

from pipelines.report import page as report
from pipelines.report import words as words_of_report
from pipelines.stages.registry import reports

pytestmark = pytest.mark.no_backend

SECTIONS = [
    "chain",
    "losses",
    "reward_model",
    "policy",
    "overoptimization",
    "best_of_n",
    "win_rates",
    "samples",
    "config",
    "versions",
]
REWARD_KEYS = (
    "accuracy",
    "accuracy_ci95",
    "ceiling",
    "regret",
    "regret_ci95",
    "calibration_error",
    "calibration_error_ci95",
    "calibration_error_if_perfect",
    "pairs",
    "pair_prompts",
)
LOADING_ATTRIBUTES = {
    "src",
    "href",
    "xlink:href",
    "srcset",
    "data",
    "action",
    "formaction",
    "poster",
    "background",
    "cite",
    "ping",
    "manifest",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> pathlib.Path:
    folder = fixture.write_run(tmp_path_factory.mktemp("runs") / "small_run")
    report.write(folder, reports())
    return folder


@pytest.fixture(scope="module")
def text(run) -> str:
    return (run / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text) -> Page:
    return Page(text)


@pytest.fixture(scope="module")
def figures(run) -> dict:
    return json.loads((run / "summary.json").read_text(encoding="utf-8"))


def svgs(text: str) -> list[xml.etree.ElementTree.Element]:
    return [xml.etree.ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", text, flags=re.S)]


def drawn(text: str, name: str) -> tuple[float, float, float, float]:
    """Bounding box of the drawn artist whose id ends in `name`: left, right, top, bottom."""
    matches = [item for svg in svgs(text) for item in svg.iter() if item.get("id", "").endswith(name)]
    assert len(matches) == 1, f"{len(matches)} artists named {name}"
    points = []
    for item in matches[0].iter():
        if item.tag == "use" and item.get("x"):
            points.append((float(item.get("x")), float(item.get("y"))))
    if not points:
        numbers = [
            float(number)
            for path in matches[0].iter("path")
            for number in re.findall(r"-?\d+(?:\.\d+)?", path.get("d"))
        ]
        points = list(zip(numbers[0::2], numbers[1::2], strict=True))
    across, down = zip(*points, strict=True)
    return min(across), max(across), min(down), max(down)


def test_every_section_is_there_in_order(page):
    assert page.sections == SECTIONS
    assert all(len(page.section_text[name].strip()) > 60 for name in SECTIONS)


@pytest.mark.parametrize(
    "stages", [[], ["pretrained"], ["sft", "preferences", "reward"], ["policy"], ["sft", "policy", "evaluation"]]
)
def test_sections_stand_in_unfinished_runs_and_say_what_is_missing(tmp_path, stages):
    page = Page(written(fixture.write_run(tmp_path / "run", stages=stages)))
    assert page.sections == SECTIONS
    kinds = {fixture.STAGES[name]["kind"] for name in stages}
    assert ("trained no reward model" in page.section_text["reward_model"]) == ("reward_modeling" not in kinds)
    assert ("no policy optimization" in page.section_text["policy"]) == ("policy_optimization" not in kinds)
    assert ("no best-of-n stage" in page.section_text["best_of_n"]) == ("best_of_n" not in kinds)
    assert ("no finished evaluation" in page.section_text["win_rates"]) == ("evaluation" not in kinds)
    assert ("No stage of this run has finished" in page.section_text["chain"]) == (stages == [])


def test_every_shown_figure_equals_the_summary(page, figures):
    assert len(page.data) > 90
    for item in page.data:
        value = figures
        for key in item["data-path"].split("/")[1:]:
            key = key.replace("~1", "/").replace("~0", "~")
            value = value[int(key)] if isinstance(value, list) else value[key]
        assert json.loads(item["value"]) == value, item
        check_wording(item["text"], value, item["class"])


def check_wording(text: str, value, style: str):
    """The figure as written is the value, to the digits written."""
    numbers = [
        float(number.replace(",", ""))
        for number in re.findall(r"-?\d[\d,]*\.?\d*(?:e-?\d+)?", text.replace("\u2212", "-"))
    ]
    if style == "text":
        assert text == str(value)
    elif style == "seconds":
        units = {"s": 1, "min": 60, "h": 3600}
        assert sum(float(n) * units[unit] for n, unit in re.findall(r"([\d.]+) (s|min|h)\b", text)) == pytest.approx(
            value, abs=0.51
        )
    else:
        scale = 100 if "percent" in style else 1
        values = value if isinstance(value, list) else [value]
        assert len(numbers) == len(values)
        for number, exact in zip(numbers, values, strict=True):
            assert number == pytest.approx(exact * scale, rel=6e-3, abs=5.1e-4 if scale == 1 else 0.051), (text, value)


def test_headline_figures_are_all_shown(page):
    shown = {item["data-path"] for item in page.data}
    for key in REWARD_KEYS:
        assert f"/reward_models/0/{key}" in shown
    for key in ("reward_start", "reward_end", "kl", "kl_sequence", "steps", "reward_source"):
        assert f"/policy/{key}" in shown
    for key in ("win_rate", "tie_rate", "loss_rate", "win_rate_ci95"):
        assert {f"/evaluation/pairs/{index}/{key}" for index in range(3)} <= shown
    for place in ("gold", "accuracy", "gold_parts/right", "gold_parts/polite"):
        for key in ("mean", "ci95"):
            assert {f"/evaluation/pairs/{index}/difference/{place}/{key}" for index in range(3)} <= shown
    for policy in fixture.PARTS:
        assert {
            f"/evaluation/gold_parts/{policy}/{part}/mean" for part in ("right", "brief", "polite", "refuses")
        } <= shown
    assert {f"/stages/sft/final/{key}" for key in ("eval_loss", "eval_loss_flatness")} <= shown
    for name in fixture.STAGES:
        assert {f"/stages/{name}/seconds", f"/stages/{name}/peak_memory_gib"} <= shown
    for place in (
        "sft/throughput/training/tokens_per_second",
        "sft/throughput/training/model_flops_utilization",
        "sft/throughput/seconds_to_first_update",
        "preferences/throughput/sampling/tokens_per_second",
        "policy/throughput/sampling/model_flops_utilization",
        "sft/programs/gradients",
    ):
        assert f"/stages/{place}" in shown


def test_win_rates_are_drawn_where_the_summary_says(text, figures):
    left, right, *_ = drawn(text, "frame-win-rate")
    share_left, share_right, *_ = drawn(text, "frame-shares")
    for pair in figures["evaluation"]["pairs"]:
        name = f"{pair['policy']}--{pair['baseline']}"
        point = drawn(text, f"point-win-rate-{name}")
        low, high, *_ = drawn(text, f"interval-win-rate-{name}")
        assert [(x - left) / (right - left) for x in (point[0], low, high)] == pytest.approx(
            [pair["win_rate"], *pair["win_rate_ci95"]], abs=1e-4
        )
        for kind, share in (
            ("wins", 1 - pair["tie_rate"] - pair["loss_rate"]),
            ("ties", pair["tie_rate"]),
            ("losses", pair["loss_rate"]),
        ):
            begin, end, *_ = drawn(text, f"{kind}-{name}")
            assert (end - begin) / (share_right - share_left) == pytest.approx(share, abs=1e-4)


def test_reward_model_accuracy_is_drawn_where_the_summary_says(text, figures):
    left, right, *_ = drawn(text, "frame-accuracy")
    measured = [drawn(text, "point-accuracy")[0], *drawn(text, "interval-accuracy")[:2], drawn(text, "-ceiling")[0]]
    expected = [
        figures["reward_model"]["accuracy"],
        *figures["reward_model"]["accuracy_ci95"],
        figures["reward_model"]["ceiling"],
    ]
    assert [(x - left) / (right - left) for x in measured] == pytest.approx(expected, abs=1e-4)


def test_gold_parts_are_drawn_in_proportion(text, figures):
    for part in ("right", "brief", "polite", "refuses"):
        at = {policy: drawn(text, f"point-gold-{policy}--{part}")[0] for policy in fixture.PARTS}
        low, high, *_ = drawn(text, f"interval-gold-sft--{part}")
        parts = {policy: figures["evaluation"]["gold_parts"][policy][part] for policy in fixture.PARTS}
        scale = (high - low) / (parts["sft"]["ci95"][1] - parts["sft"]["ci95"][0])
        for policy in ("control", "policy"):
            assert (at[policy] - at["sft"]) / scale == pytest.approx(
                parts[policy]["mean"] - parts["sft"]["mean"], abs=1e-4
            )


def test_nothing_is_loaded_from_anywhere(text, page):
    assert not re.search(r"https?:|//[a-z]|file:|javascript:", text, flags=re.I)
    assert not re.search(r"@import|url\(\s*['\"]?(?!#)", text)
    for tag, attributes in page.tags:
        assert tag not in {
            "script",
            "link",
            "iframe",
            "object",
            "embed",
            "base",
            "img",
            "form",
            "foreignobject",
            "audio",
            "video",
        }
        for name, value in attributes.items():
            assert not name.startswith("on") and not (value or "").startswith("data:")
            if name in LOADING_ATTRIBUTES:
                assert value.startswith("#")
    policy = next(
        attributes["content"]
        for tag, attributes in page.tags
        if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert "default-src 'none'" in policy and "script" not in policy


def test_references_inside_the_page_lead_somewhere(text, page):
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = {value[1:] for _, attributes in page.tags for name, value in attributes.items() if name == "href"}
    links |= set(re.findall(r"url\(#([^)]*)\)", text))
    assert links and links <= set(ids)


def test_untrusted_text_is_shown_and_not_executed(text, page):
    assert "<script" not in text.lower()
    assert text.count("&lt;script&gt;") >= 4
    assert fixture.SCRIPT in page.section_text["samples"]
    assert "Add <b>one</b>" in page.section_text["samples"]
    assert "\x00" not in text and r"\x00" in text


PLACES = {
    "policy name": ("stages/evaluation/evaluation.json", '"control"', "{}"),
    "judge": ("stages/evaluation/evaluation.json", '"gold",', "{},"),
    "part": ("stages/evaluation/evaluation.json", '"polite"', "{}"),
    "reward source": ("stages/policy_no_kl/final.json", '"reward"}', "{}}"),
    "version": ("stages/evaluation/stage.json", '"3.15.1"', "{}"),
    "workflow": ("workflow.yaml", "name: small_run", "name: {}"),
}


def written_with(folder, place, evil) -> str:
    """The page of a run in which a text stands at a place."""
    fixture.write_run(folder, stages=["policy_no_kl", "evaluation"])
    file, old, new = PLACES[place]
    before = (folder / file).read_text(encoding="utf-8")
    assert old in before
    (folder / file).write_text(before.replace(old, new.replace("{}", json.dumps(evil), 1)), encoding="utf-8")
    return written(folder)


@pytest.mark.parametrize("place", PLACES)
def test_markup_anywhere_in_a_run_is_escaped(tmp_path, place):
    text = written_with(tmp_path / "run", place, fixture.SCRIPT)
    assert "<script" not in text.lower() and "&lt;script&gt;" in text
    Page(text)
    svgs(text)


@pytest.mark.parametrize("place", PLACES)
def test_characters_that_act_are_spelled_anywhere_in_a_run(tmp_path, place):
    text = written_with(tmp_path / "run", place, "safe\u202egpj.exe\x1b[2J")
    assert not {"\u202e", "\x1b"} & set(text) and r"safe\u202egpj.exe\x1b[2J" in text
    svgs(text)


def test_text_keeps_its_blank_lines(tmp_path):
    folder = fixture.write_run(tmp_path / "run", stages=["evaluation"])
    row = {"prompt": "p", "completions": {"sft": "\none\n\n\n  two  ", "policy": "x"}}
    (folder / "stages" / "evaluation" / "samples.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    assert "\none\n\n\n  two  " in Page(written(folder)).section_text["samples"]


def test_the_headline_is_the_verdict(text):
    assert (
        "<h1>policy beats sft, judged by gold: 71 % [68, 74] of 512 prompts; gold +0.140 [0.119, 0.163]: "
        "right +0.020, brief +0.260, polite +0.260, refuses +0.020</h1>"
    ) in text


@pytest.mark.parametrize(
    ("bounds", "words"),
    [([0.51, 0.6], "beats"), ([0.49, 0.6], "is level with"), ([0.3, 0.499], "loses to"), (None, "against")],
)
def test_the_verdict_needs_an_interval_off_one_half(figures, bounds, words):
    changed = json.loads(json.dumps(figures))
    changed["evaluation"]["win_rate_ci95"] = bounds
    assert words_of_report.verdict(changed, reports()).startswith(f"policy {words} sft, judged by gold")


def test_warnings_stand_at_the_top(tmp_path):
    folder = fixture.write_run(tmp_path / "run")
    assert "To know before" not in written(folder)
    file = folder / "stages" / "policy" / "final.json"
    final = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**final, "warnings": ["3 of 8 <b>prompts</b>"]}), encoding="utf-8")
    text = written(folder)
    assert text.index("<li><b>policy</b>: 3 of 8 &lt;b&gt;prompts&lt;/b&gt;</li>") < text.index("<nav>")


def test_overoptimization_is_called_only_where_intervals_are_apart(page):
    said = page.section_text["overoptimization"]
    assert "policy: The training reward went from 0.020 to 1.21." in said
    assert "Gold was highest at the last step (0.819 [0.794, 0.844])" in said
    assert (
        "Gold peaked at step 40 (0.818 [0.782, 0.854]) and ended at" in said
        and "so the reward was over-optimized" in said
    )


def test_equal_runs_give_equal_reports(tmp_path, run):
    other = fixture.write_run(tmp_path / "small_run")
    # In another process: hash seeds and whatever was drawn before must not matter.
    code = f"from pipelines.run.runner import write_results; write_results({str(other)!r})"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=pathlib.Path(report.__file__).parents[2])
    for name in ("summary.json", "report.html"):
        assert (other / name).read_bytes() == (run / name).read_bytes()


def test_writing_leaves_no_other_file(run):
    assert sorted(path.name for path in run.iterdir()) == ["report.html", "stages", "summary.json", "workflow.yaml"]


def test_samples_of_a_policy_stand_in_where_nothing_was_evaluated(tmp_path):
    folder = fixture.write_run(tmp_path / "run", stages=["policy"])
    row = {"step": 30, "prompt": "Say hello", "completion": "hello there", "reward": 0.75}
    (folder / "stages" / "policy" / "samples.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    said = Page(written(folder)).section_text["samples"]
    assert "hello there" in said and "policy, step 30" in said and "0.750" in said
