"""The report of a run with seeds: the table against figures worked out by hand, and a complete report for each seed."""

import json
import re
import shutil

import pytest
import report_fixture as fixture
import yaml
from pytest import approx

from pipelines.report import headline
from pipelines.report import page as report
from pipelines.report.records import read_run
from pipelines.report.summary import build
from pipelines.stages.registry import reports

pytestmark = pytest.mark.no_backend

ONCE = ["pretrained", "sft", "preferences", "reward"]
REPEATED = ["policy", "policy_no_kl", "evaluation", "control"]
GOLD = {17: (0.80, 0.70), 18: (0.83, 0.75), 19: (0.71, 0.72)}
"""Seed → gold reward of `policy` and of `sft`."""
WIN_RATES = {17: 0.70, 18: 0.60, 19: 0.50}
KL = {17: 2.0, 18: 3.0, 19: 2.5}


def write_seeds(folder, seeds, first="policy", finished=REPEATED):
    """A run of these seeds, in which the seeds differ in three figures."""
    order = [*ONCE, *REPEATED]
    once = order[: order.index(first)]
    fixture.write_run(folder, stages=once)
    for seed in seeds:
        part = fixture.write_run(folder / "seeds" / str(seed), stages=[name for name in finished if name not in once])
        (part / "workflow.yaml").unlink()
        edit(part / "stages/evaluation/evaluation.json", seed)
        final = part / "stages/policy/final.json"
        if final.is_file():
            gold = {"gold_start": GOLD[seed][1], "gold_end": 0.5}
            final.write_text(json.dumps({**json.loads(final.read_text(encoding="utf-8")), **gold}), encoding="utf-8")
    stages = {name: fixture.STAGES[name] for name in order}
    workflow = {"name": "run", "seed": 17, "stages": stages, "seeds": {"values": [17, 18, 19], "from": first}}
    (folder / "workflow.yaml").write_text(yaml.safe_dump(workflow, sort_keys=False), encoding="utf-8")
    return folder


def edit(file, seed):
    if file.is_file():
        found = json.loads(file.read_text(encoding="utf-8"))
        for name, gold in zip(("policy", "sft"), GOLD[seed], strict=True):
            found["policies"][name]["gold"]["mean"] = gold
        found["policies"]["policy"]["kl_sequence"] = KL[seed]
        found["pairs"][1]["win_rate"] = WIN_RATES[seed]
        file.write_text(json.dumps(found), encoding="utf-8")


def written(folder):
    """Summary and text of the report."""
    report.write(folder, reports())
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return summary, (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_seeds(tmp_path_factory.mktemp("runs") / "run", (17, 18, 19))


@pytest.fixture(scope="module")
def results(run):
    return written(run)


@pytest.fixture(scope="module")
def table(results):
    return {row["label"]: row for row in results[0]["seeds"]["table"]}


def test_mean_and_range_are_those_of_the_seeds(table):
    row = table["policy: gold reward"]
    assert row["values"] == {"17": 0.80, "18": 0.83, "19": 0.71}
    assert (row["mean"], row["min"], row["max"], row["n"]) == (approx(2.34 / 3), 0.71, 0.83, 3)
    assert "middle" not in row
    row = table["policy: KL a response, nats"]
    assert (row["mean"], row["min"], row["max"]) == (2.5, 2.0, 3.0)
    row = table["policy: gold, brief"]
    assert (row["mean"], row["min"], row["max"]) == (approx(fixture.PARTS["policy"][1]),) * 3
    assert table["policy: right answers"]["mean"] == approx(0.73)


def test_a_difference_is_taken_within_each_seed_and_its_signs_are_counted(table):
    row = table["policy minus sft: gold reward"]
    assert row["values"] == approx({"17": 0.10, "18": 0.08, "19": -0.01})
    assert (row["mean"], row["min"], row["max"]) == (approx(0.17 / 3), approx(-0.01), approx(0.10))
    # At least two of three fair coins: (3 + 1) of 8 outcomes.
    assert (row["middle"], row["above"], row["below"], row["sign_test"]) == (0, 2, 1, 0.5)
    row = table["policy minus sft: gold, polite"]  # 0.81 - 0.55 in every seed
    assert (row["mean"], row["above"], row["below"], row["sign_test"]) == (approx(0.26), 3, 0, 1 / 8)
    row = table["policy against sft: win rate"]  # a tie lies on neither side
    assert (row["mean"], row["middle"]) == (approx(0.6), 0.5)
    assert (row["above"], row["below"], row["sign_test"]) == (2, 0, 1 / 4)
    row = table["policy in training: gold reward, last minus first"]
    assert row["values"] == approx({"17": -0.20, "18": -0.25, "19": -0.22})
    assert (row["above"], row["below"], row["sign_test"]) == (0, 3, 1 / 8)
    assert "policy_no_kl in training: gold reward, last minus first" not in table, "it wrote none"


def test_what_varies_is_compared_and_nothing_else(table, tmp_path):
    """The reward model was trained once; one row of it would be one figure, thrice."""
    assert "policy in training: reward at the end" in table and "policy minus control: gold reward" in table
    assert not any(label.startswith("reward:") for label in table)
    assert "sft: KL a response, nats" not in table, "the reference is where it is"
    summary = build(write_seeds(tmp_path / "run", (17, 18), "pretrained", [*ONCE, *REPEATED]), reports())
    row = {row["label"]: row for row in summary["seeds"]["table"]}["reward: right on held-out pairs"]
    assert (row["n"], row["mean"]) == (2, approx(0.803))


def test_the_first_row_makes_the_headline_and_the_terminal_has_the_main_rows(results):
    summary, text = results
    assert "<h1>policy minus sft: gold reward 0.057 (−0.010 to 0.100), 2 of 3 seeds above 0</h1>" in text
    lines = dict(re.split(r"  +", line, maxsplit=1) for line in headline.lines(summary, reports()))
    assert list(lines)[:7] == [*ONCE, "seed 17", "seed 18", "seed 19"]
    assert lines["policy minus sft: gold reward"] == "0.057 (−0.010 to 0.100), 2 of 3 seeds above 0"
    assert lines["policy against sft: win rate"] == "60.0 % (50.0 % to 70.0 %), 2 of 3 seeds above 50 %"
    assert lines["policy: gold reward"] == "0.780 (0.710 to 0.830), 3 seeds"
    assert "policy: gold, brief" not in lines and "policy minus control: gold reward" not in lines
    # Of the stages that run once a seed a line a seed: the fixture's eight stages take 12.34 + 21.5 i seconds.
    own = [list(fixture.STAGES).index(name) for name in REPEATED]
    assert summary["seeds"]["parts"]["18"]["seconds"] == approx(sum(12.34 + 21.5 * index for index in own))


def test_every_figure_of_the_table_is_the_one_in_the_summary(results):
    summary, text = results
    section = text[text.index('<section id="seeds">') : text.index('<section id="chain">')]
    shown = re.findall(r'data-path="([^"]*)" value="([^"]*)"', section)
    assert len(shown) > 100
    for path, value in shown:
        found = summary
        for key in path.split("/")[1:]:
            found = found[int(key)] if isinstance(found, list) else found[key]
        assert json.loads(value) == found, path
    assert ">0.780</data>" in section
    first = summary["seeds"]["table"][0]
    assert [json.loads(dict(shown)[f"/seeds/table/0/{key}"]) for key in ("above", "below", "sign_test")] == [2, 1, 0.5]
    assert first["label"] == "policy minus sft: gold reward" and first["label"] in section


def test_the_top_has_the_first_seed_s_sections_and_leads_to_each_seed_s_report(run, results):
    summary, text = results
    assert summary["seed"] == 17 and list(summary["stages"]) == [*ONCE, *REPEATED]
    assert summary["policy"]["stage"] == "policy_no_kl" and summary["evaluation"]["win_rate"] == 0.70
    assert re.findall(r'<section id="(\w+)"', text)[:3] == ["seeds", "chain", "losses"]
    assert "For each seed: policy, policy_no_kl, evaluation, control; the stages before them ran once for all." in text
    assert "The sections below are those of seed 17." in text and 'class="tiles"' not in text
    links = re.findall(r'href="(seeds/[^"]*)"', text)
    assert links == ["seeds/17/report.html", "seeds/18/report.html", "seeds/19/report.html"]


@pytest.mark.parametrize("seed", [17, 19])
def test_the_report_of_a_seed_is_complete(run, seed):
    summary, text = written(run / "seeds" / str(seed))
    assert (run / f"seeds/{seed}/report.html").is_file() and 'href="../../report.html"' in text
    assert (summary["name"], summary["seed"]) == ("run", seed) and "seeds" not in summary
    assert list(summary["stages"]) == [*ONCE, *REPEATED]
    assert summary["reward_model"]["accuracy"] == 0.803 and summary["evaluation"]["win_rate"] == WIN_RATES[seed]
    assert f"seed {seed} of 17, 18, 19" in text and '<section id="seeds">' not in text
    assert "judged by gold" in text[: text.index("</h1>")] and 'class="tiles"' in text


def test_a_seed_that_has_not_finished_counts_where_it_has_a_figure(tmp_path):
    folder = write_seeds(tmp_path / "run", (17, 18))
    for name in ("evaluation.json", "stage.json"):
        (folder / "seeds/18/stages/evaluation" / name).unlink()
    summary, text = written(folder)
    rows = {row["label"]: row for row in summary["seeds"]["table"]}
    assert rows["policy: gold reward"]["values"] == {"17": 0.80}
    assert rows["policy in training: reward at the end"]["n"] == 2
    assert "<h1>policy minus sft: gold reward 0.100, 1 of 1 seed above 0</h1>" in text
    assert "seeds/19" not in text, "what has not begun has no report"


def test_a_run_of_which_nothing_has_finished_says_so(tmp_path):
    folder = write_seeds(tmp_path / "run", (), "pretrained")
    summary, text = written(folder)
    assert summary["seeds"]["table"] == [] and "No seed has finished a stage" in text
    assert "Every stage ran once for each seed." in text
    assert read_run(folder).parts == []


def test_what_was_left_by_other_seeds_or_by_a_plain_run_is_no_part_of_it(tmp_path):
    folder = write_seeds(tmp_path / "run", (17, 18))
    fixture.write_run(tmp_path / "plain", stages=["policy"])
    (tmp_path / "plain/stages/policy").rename(folder / "stages/policy")
    (folder / "seeds/18").rename(folder / "seeds/20")
    shutil.rmtree(folder / "seeds/17/stages/policy")
    summary = build(folder, reports())
    assert list(summary["seeds"]["parts"]) == ["17"]
    assert list(summary["stages"]) == [*ONCE, *REPEATED[1:]]
    assert [name for name, _ in read_run(folder).all_stages[len(ONCE) :]] == [
        f"{name}, seed 17" for name in REPEATED[1:]
    ]
    plain = yaml.safe_load((folder / "workflow.yaml").read_text(encoding="utf-8"))
    del plain["seeds"]
    (folder / "workflow.yaml").write_text(yaml.safe_dump(plain, sort_keys=False), encoding="utf-8")
    assert "seeds" not in build(folder, reports())


def test_warnings_of_every_seed_stand_at_the_top(tmp_path):
    folder = write_seeds(tmp_path / "run", (17, 18), finished=["policy"])
    for place, text in (("stages/sft", "once"), ("seeds/17/stages/policy", "first"), ("seeds/18/stages/policy", "<b>")):
        file = folder / place / "final.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "warnings": [text]}), encoding="utf-8")
    _, text = written(folder)
    for name, said in (("sft", "once"), ("policy, seed 17", "first"), ("policy, seed 18", "&lt;b&gt;")):
        assert text.count(f"<li><b>{name}</b>: {said}</li>") == 1
