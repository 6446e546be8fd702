"""lm-eval's tasks as we load them: examples that are never asked, rows that are drawn, answers that are sampled, and
programs that run in our sandbox."""

import itertools
import json
import math

import numpy as np
import pytest
from sandboxes import needs_a_sandbox

from pipelines.tasks.benchmarks import BENCHMARKS
from pipelines.tasks.benchmarks.choice import choose

pytestmark = [pytest.mark.once, pytest.mark.needs("lm_eval")]


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of data with small sets in the forms of the real ones."""
    folder = tmp_path_factory.mktemp("data")
    hellaswag = [
        {"query": f"Cooking: number {n} he", "choices": [f"{k} of {n}" for k in range(4)], "gold": n % 4}
        for n in range(90)
    ]
    write(folder / "hellaswag" / "val.jsonl", [*hellaswag, hellaswag[3]])
    for split, count in (("train", 8), ("test", 6)):
        rows = [{"question": f"{split} {n} and 1?", "answer": f"It is.\n#### {n + 1}"} for n in range(count)]
        write(folder / "gsm8k" / f"{split}.jsonl", rows)
    mmlu = BENCHMARKS["mmlu"].tasks.values()
    for split, count in (("dev", 5), ("test", 3)):
        rows = [
            {"subject": subject, "question": f"{split} {subject} {n}", "choices": list("wxyz"), "answer": str(n % 4)}
            for subject in mmlu
            for n in range(count)
        ]
        write(folder / "mmlu" / f"{split}.jsonl", rows)
    code = [
        {"task_id": n, "text": f"Add {n}.", "code": f"def f(x):\n    return x + {n}", "test_setup_code": "",
         "test_list": [f"assert f({k}) == {k + n}" for k in range(3)]}
        for n in range(1, 16)
    ]  # fmt: skip
    write(folder / "mbpp" / "mbpp.jsonl", code)
    return folder


def loaded(name, data, **options):
    from pipelines.engines.lm_eval.tasks import load_tasks

    (chosen,) = choose([name])
    shots = options.pop("shots", None)
    return load_tasks(chosen if shots is None else chosen.with_shots(shots), data, options.pop("seed", 5), **options)


def contexts(task, rows, shots):
    return [task.fewshot_context(task.task_docs[row], num_fewshot=shots) for row in range(rows)]


def test_examples_of_a_set_without_others_are_taken_out_of_what_is_asked(data):
    """64 of 91 rows would leave too few: at most half. A row that stands twice is not asked if it is an example."""
    (task,) = loaded("hellaswag", data, shots=3).values()
    pool = {row["query"] for row in task.sampler.fewshot_docs()}
    asked = [row["query"] for row in task.task_docs]
    assert len(pool) in (44, 45) and not pool & set(asked) and len(asked) + len(pool) in (90, 91)
    (again,) = loaded("hellaswag", data, shots=3).values()
    assert [row["query"] for row in again.task_docs] == asked, "the same for every model"
    (other,) = loaded("hellaswag", data, shots=3, seed=6).values()
    assert [row["query"] for row in other.task_docs] != asked
    (whole,) = loaded("hellaswag", data).values()
    assert len(whole.task_docs) == 91 and whole.config.num_fewshot == 0


def test_fixed_examples_stand_before_every_question(data):
    (task,) = loaded("gsm8k", data, fixed_shots=True).values()
    before = {context.rpartition("Question: ")[0] for context in contexts(task, 6, 5)}
    assert len(before) == 1 and next(iter(before)).count("train") == 5
    (drawn,) = loaded("gsm8k", data).values()
    assert len({context.rpartition("Question: ")[0] for context in contexts(drawn, 6, 5)}) > 1
    assert all("test" not in context.rpartition("Question: ")[0] for context in contexts(drawn, 6, 5))


def test_parts_of_a_set_and_rows_that_are_drawn_of_all_of_them(data):
    from pipelines.engines.lm_eval.tasks import draw_rows

    tasks = loaded("mmlu", data)
    assert len(tasks) == 57 and {len(task.task_docs) for task in tasks.values()} == {3}
    text = contexts(tasks["mmlu_anatomy"], 1, 5)[0]
    assert text.startswith("The following are multiple choice questions (with answers) about anatomy.\n\ndev anatomy 0")
    assert text.endswith("test anatomy 0\nA. w\nB. x\nC. y\nD. z\nAnswer:")
    chosen, rows = draw_rows(tasks, 20, 5, "mmlu")
    assert sum(map(len, rows.values())) == 20 and chosen.keys() == rows.keys() and len(chosen) < 57
    for name, task in chosen.items():
        assert [row["question"] for row in task.task_docs] == [f"test {name[5:]} {row}" for row in rows[name]]
        assert [row["question"] for row in task.eval_docs] == [row["question"] for row in task.task_docs]
    assert draw_rows(loaded("mmlu", data), 20, 5, "mmlu")[1] == rows
    assert draw_rows(loaded("mmlu", data), 20, 6, "mmlu")[1] != rows
    assert sum(map(len, draw_rows(loaded("mmlu", data), None, 5, "mmlu")[1].values())) == 171


class Scripted:
    """lm-eval's model whose answers are given; the k-th answer to a question is the k-th of the list."""

    def __new__(cls, answers):
        from lm_eval.api.model import LM

        class Model(LM):
            asked = []

            def loglikelihood(self, requests):
                raise AssertionError("answers in words alone are scripted")

            loglikelihood_rolling = loglikelihood

            def generate_until(self, requests):
                self.asked += requests
                turn = itertools.cycle(answers)
                return [next(turn) for _ in requests]

        return Model()


def test_what_most_answers_say(data):
    """maj@5 beside the first answer, by both of the task's ways to find the number."""
    from pipelines.engines.lm_eval.results import measure
    from pipelines.engines.lm_eval.tasks import draw_rows

    tasks, rows = draw_rows(loaded("gsm8k", data, samples=5, temperature=0.7), 1, 5, "gsm8k")
    (row,) = rows["gsm8k"]
    right, wrong = f"so #### {row + 1}", "so #### 77"
    model = Scripted([wrong, right, right, wrong, right])
    found = measure(model, tasks, "exact_match,strict-match", False)
    assert found.value == 0.0 and found.others["exact_match,strict-match-maj@5"] == 1.0
    assert found.others["exact_match,flexible-extract-maj@5"] == 1.0 and len(model.asked) == 5
    assert model.asked[0].args[1]["do_sample"] is True and model.asked[0].args[1]["temperature"] == 0.7
    tasks, _ = draw_rows(loaded("gsm8k", data, samples=5, temperature=0.7), 1, 5, "gsm8k")
    found = measure(Scripted([right, wrong, wrong, wrong, right]), tasks, "exact_match,strict-match", False)
    assert found.value == 1.0 and found.others["exact_match,strict-match-maj@5"] == 0.0


def test_a_figure_that_a_task_does_not_give(data):
    from pipelines.engines.lm_eval.results import measure
    from pipelines.host.errors import DataError

    with pytest.raises(DataError, match=r"gsm8k:1: no figure 'acc'; the task gives exact_match,strict-match"):
        measure(Scripted(["1"]), loaded("gsm8k", data), "acc", False)


@needs_a_sandbox
def test_programs_run_in_the_sandbox(data):
    """Of four answers two pass: pass@1 is a half, pass@4 is 1. None sees a test or touches this process."""
    from pipelines.engines.lm_eval.results import measure
    from pipelines.engines.lm_eval.tasks import draw_rows

    tasks, rows = draw_rows(loaded("mbpp", data, samples=4, temperature=1.0), 1, 5, "mbpp")
    (place,) = rows["mbpp"]
    number = tasks["mbpp"].task_docs[0]["task_id"]
    good = f"def f(x):\n    return x + {number}\n"
    answers = [good, "def f(x):\n    return x\n", f"```python\n{good}```", "import os; os._exit(0)"]
    found = measure(Scripted(answers), tasks, "pass@1", False)
    assert found.value == 0.5 and found.others == {"pass@4": 1.0} and place == number - 11
    asked = found.samples[0]["arguments"][0][0]
    assert asked.count("[BEGIN]") == 4 and asked.count("[DONE]") == 3 and asked.endswith("[BEGIN]\n")
    assert "Add 2." in asked and "Add 3." in asked and "Add 4." in asked


def test_without_a_sandbox_no_question_is_asked(data, monkeypatch):
    from pipelines.engines.lm_eval import code_tasks
    from pipelines.host.errors import DataError

    def nothing(sandbox):
        raise code_tasks.SandboxError("nothing works here")

    monkeypatch.setattr(code_tasks, "choose", nothing)
    with pytest.raises(DataError, match="mbpp:1: nothing works here"):
        loaded("mbpp", data)


@pytest.mark.parametrize(("passed", "of", "k"), [(0, 5, 2), (1, 5, 1), (2, 5, 3), (3, 6, 2), (5, 5, 1), (4, 5, 2)])
def test_pass_at_k_by_enumeration(passed, of, k):
    from pipelines.engines.lm_eval.code_tasks import pass_at_k

    outcomes = [True] * passed + [False] * (of - passed)
    chance = np.mean([any(drawn) for drawn in itertools.combinations(outcomes, k)])
    assert pass_at_k(passed, of, k) == pytest.approx(chance)
    assert math.isclose(pass_at_k(of, of, k), 1.0)


def test_the_gap_between_stereotypes():
    """Three of four right with the stereotype, one of two against it."""
    from pipelines.engines.lm_eval.bias_tasks import gap, winobias

    task = winobias(1)
    right, wrong = ([(-1.0, False), (-2.0, False)], [(-2.0, False), (-1.0, True)])
    counted = [
        task["process_results"]({"label": 0, "is_pro": is_pro}, answers)
        for is_pro, answers in [(1, right), (1, right), (1, right), (1, wrong), (0, right), (0, wrong)]
    ]
    assert [one["acc"] for one in counted] == [1, 1, 1, 0, 1, 0]
    rules = {one["metric"]: one["aggregation"] for one in task["metric_list"]}
    values = [one["gap"] for one in counted]
    assert rules["acc_pro"](values) == 0.75 and rules["acc_anti"](values) == 0.5 and gap(values) == 0.25
    assert math.isnan(gap(values[:4]))


def test_continuations_are_scored_by_what_the_metric_names(tmp_path):
    """Two samples each: the mean of both, and by kind of prompt."""
    from pipelines.engines.lm_eval.results import measure
    from pipelines.engines.lm_eval.tasks import draw_rows

    rows = [{"prompt": f"- {n}\n-", "kind": kind, "group": "g"} for n, kind in enumerate(["hate", "neutral", "hate"])]
    write(tmp_path / "toxigen" / "prompts.jsonl", rows)
    heard = []

    def score(prompt, text):
        heard.append((prompt, text))
        return float(text == " bad") if prompt != "- 2\n-" else 0.25

    more = {"toxicity": ("classifier:mine", score), "sandbox": "auto"}
    tasks = loaded("toxigen", tmp_path, samples=2, temperature=1.0, more=more)
    tasks, _ = draw_rows(tasks, None, 5, "toxigen")
    found = measure(Scripted([" bad", " good"]), tasks, "toxicity[classifier:mine]", False)
    assert found.value == pytest.approx((0.5 + 0.5 + 0.25) / 3) and found.interval is not None
    kinds = {name.rpartition(" ")[2]: value for name, value in found.others.items()}
    assert kinds == {"hate": pytest.approx(0.375), "neutral": 0.5}
    assert heard[0] == ("- 0\n-", " bad") and len(heard) == 6


def test_which_k_samples_tell_of():
    from pipelines.engines.lm_eval.code_tasks import ks_of

    assert [ks_of(n) for n in (1, 4, 10, 64, 200)] == [[1], [1, 4], [1, 10], [1, 10, 64], [1, 10, 100, 200]]


def test_lm_eval_s_own_command_knows_our_model(data, tmp_path):
    """`python -m pipelines.engines.lm_eval run --model gemma_keras`, on a task of a file."""
    import os
    import subprocess
    import sys

    from policy_fixture import world_model

    folder = world_model(tmp_path / "m", scale=3.0) / "model"
    rows = [{"q": f"say {n}", "c": ["the", "words", "line"], "a": n % 3} for n in range(6)]
    write(tmp_path / "rows.jsonl", rows)
    (tmp_path / "mine.yaml").write_text(
        f"task: mine\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {tmp_path}/rows.jsonl}}}}\n"
        "test_split: test\noutput_type: multiple_choice\ndoc_to_text: q\ndoc_to_choice: c\ndoc_to_target: a\n"
        "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
    )
    command = [
        *(sys.executable, "-m", "pipelines.engines.lm_eval", "run", "--model", "gemma_keras"),
        *("--model_args", f"pretrained={folder}", "--tasks", str(tmp_path / "mine.yaml")),
        *("--output_path", str(tmp_path / "out")),
    ]
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home")}
    process = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=250, cwd=tmp_path)
    assert process.returncode == 0, process.stderr[-2000:]
    assert "|mine" in process.stdout and "acc" in process.stdout
