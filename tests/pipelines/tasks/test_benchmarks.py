"""Suites against the tables that were published, and rows of files in the columns that the sets have on the hub."""

import json

import pytest
from real_data import REAL_DATA, needs_data

from pipelines.host.errors import DataError
from pipelines.tasks.benchmarks import BENCHMARKS, SUITES, bias_rows, rows, toxicity_rows
from pipelines.tasks.benchmarks.choice import choose, places, published, set_folders

pytestmark = pytest.mark.no_backend

# arXiv:2403.08295, table 6: benchmark, setting, 2B, 7B.
TABLE_6 = """
MMLU 5-shot,_top-1 42.3 64.3
HellaSwag 0-shot 71.4 81.2
PIQA 0-shot 77.3 81.2
SIQA 0-shot 49.7 51.8
Boolq 0-shot 69.4 83.2
Winogrande partial_scoring 65.4 72.3
CQA 7-shot 65.3 71.3
OBQA 47.8 52.8
ARC-e 73.2 81.5
ARC-c 42.1 53.2
TriviaQA 5-shot 53.2 63.4
NQ 5-shot 12.5 23.0
HumanEval pass@1 22.0 32.3
MBPP 3-shot 29.2 44.4
GSM8K maj@1 17.7 46.4
MATH 4-shot 11.8 24.3
AGIEval 24.2 41.7
BBH 35.2 55.1
"""
NAMES = {
    "CQA": "commonsense_qa", "OBQA": "openbookqa", "ARC-e": "arc_easy", "ARC-c": "arc_challenge", "NQ": "nq_open",
}  # fmt: skip
# The model card of Gemma 3 270M, pretrained.
CARD = {
    "hellaswag": (10, 40.9), "boolq": (0, 61.4), "piqa": (0, 67.7), "triviaqa": (5, 15.4), "arc_challenge": (25, 29.0),
    "arc_easy": (0, 57.7), "winogrande": (5, 52.0),
}  # fmt: skip


def test_the_paper_s_table():
    lines = [line.split() for line in TABLE_6.split("\n") if line]
    entries = SUITES["gemma_paper"].entries
    assert [one.benchmark for one in entries] == [NAMES.get(line[0], line[0].lower()) for line in lines]
    for one, line in zip(entries, lines, strict=True):
        *setting, small, large = line[1:]
        assert one.published == {"Gemma 2B": float(small), "Gemma 7B": float(large)}
        assert one.setting == (setting[0].replace("_", " ") if setting else "not given")
    assert sum(one.published["Gemma 2B"] for one in entries) / 18 == pytest.approx(45.0, abs=0.6)
    assert sum(one.published["Gemma 7B"] for one in entries) / 18 == pytest.approx(56.9, abs=0.6)


@pytest.mark.parametrize("one", choose(["gemma_paper"]), ids=lambda one: one.name)
def test_what_is_measured_is_what_the_setting_says(one):
    """Shots and metric of all 18; where the paper gives none, the note says what stands here."""
    setting = one.entry.setting
    if setting.endswith("-shot") or setting == "5-shot, top-1":
        assert one.shots == int(setting.partition("-")[0])
    elif setting == "pass@1":
        assert one.metric == "pass@1" and one.shots == 0
    else:
        assert setting == "partial scoring" or f"{one.shots}-shot" in one.entry.note
    assert one.benchmark.kind != "choice" or one.metric in ("acc", "acc_norm")


def test_the_card():
    entries = SUITES["gemma_3_270m_card"].entries
    assert {one.benchmark: (one.shots, one.published["Gemma 3 270M PT"]) for one in entries} == CARD
    assert published(choose(["gemma_3_270m_card"])) == ["Gemma 3 270M PT"]


# arXiv:2403.08295, table 8, models 1.1.
TABLE_8 = {
    "realtoxicity": (7.03, 8.04), "bold": (47.76, 45.2), "crows_pairs": (45.89, 49.67),
    "bbq_ambiguous": (58.97, 86.06), "bbq_disambiguated": (53.9, 85.08), "winogender": (50.14, 57.64),
    "truthfulqa_mc2": (44.24, 45.34), "winobias_type1": (55.93, 59.22), "winobias_type2": (89.46, 89.2),
    "toxigen": (29.64, 38.75),
}  # fmt: skip


def test_the_table_of_safety():
    found = {one.benchmark: tuple(one.published.values()) for one in SUITES["gemma_safety"].entries}
    assert found == TABLE_8 and all(one.note for one in SUITES["gemma_safety"].entries), "none is defined in the paper"


def test_sentences_of_bias_by_hand(tmp_path):
    for name, words in (("male", "developer\nconstruction worker\nguard"), ("female", "nurse\ncleaner")):
        (tmp_path / f"{name}_occupations.txt").write_text(words)
    (tmp_path / "pro_stereotyped_type1.txt.test").write_text(
        "1 [The developer] argued with the nurse because [he] was late.\n"
        "2 The construction worker told [a nurse] that [she] might.\n"
    )
    (tmp_path / "anti_stereotyped_type1.txt.test").write_text(
        "1 The developer hated [the cleaner] and reported [him] to the guard.\n"
    )
    found = bias_rows.winobias(tmp_path, "1")["test"]
    assert found[0] == {
        "sentence": "The developer argued with the nurse because he was late.", "pronoun": "he",
        "choices": ["developer", "nurse"], "label": 0, "is_pro": 1,
    }  # fmt: skip
    assert (found[1]["choices"], found[1]["label"]) == (["construction worker", "nurse"], 1)
    assert (found[2]["choices"], found[2]["label"], found[2]["is_pro"]) == (["developer", "cleaner"], 1, 0)
    (tmp_path / "anti_stereotyped_type1.txt.test").write_text("1 [The pilot] saw the nurse when [he] came.\n")
    with pytest.raises(DataError, match=r"anti_stereotyped_type1.txt.test:1: expected two occupations"):
        bias_rows.winobias(tmp_path, "1")


def test_pronouns_by_hand(tmp_path):
    (tmp_path / "all_sentences.tsv").write_text(
        "sentid\tsentence\n"
        "technician.customer.1.female.txt\tThe technician told the customer that she could pay.\n"
        "chef.guest.0.neutral.txt\tThe chef told the guest that their cake was done.\n"
    )
    first, second = bias_rows.winogender(tmp_path, "")["test"]
    assert (first["pronoun"], first["label"], first["participant"]) == ("she", 1, "customer")
    assert (second["pronoun"], second["label"], second["occupation"]) == ("their", 0, "chef")


def test_prompts_to_continue_by_hand(tmp_path):
    (tmp_path / "gender_prompt.json").write_text(json.dumps({"Actors": {"A_B": ["A B is an ", "A B was "]}}))
    found = toxicity_rows.bold(tmp_path, "")["test"]
    assert found[0] == {"prompt": "A B is an", "kind": "gender", "group": "Actors"} and len(found) == 2
    real = [{"prompt": {"text": "So "}, "challenging": True}, {"prompt": {"text": "It"}, "challenging": False}]
    found = toxicity_rows.realtoxicity(write(tmp_path, "prompts.jsonl", *real), "")["test"]
    assert [row["kind"] for row in found] == ["challenging prompts", "other prompts"] and found[0]["prompt"] == "So "
    with pytest.raises(DataError, match="no domain of BOLD"):
        toxicity_rows.bold(tmp_path / "nowhere", "")


def test_names_of_suites_benchmarks_and_tasks():
    found = choose(["piqa", "gemma_3_270m_card", "lm_eval:lambada_openai"])
    assert [one.name for one in found][:2] == ["piqa", "hellaswag"] and len(found) == 8, "each once, the first counts"
    assert found[0].suite is None and found[1].suite == "gemma_3_270m_card" and found[1].shots == 10
    assert found[-1].name == "lambada_openai" and found[-1].benchmark is None and found[-1].metric is None
    assert found[1].with_shots(3).shots == 3
    with pytest.raises(ValueError, match=r"no suite or benchmark 'hellaswak'. Did you mean 'hellaswag'\?"):
        choose(["hellaswak"])


def test_folders_of_sets(tmp_path):
    piqa = BENCHMARKS["piqa"]
    assert places(piqa) == ["piqa", "evaluation/piqa"] and set_folders(None, piqa) == []
    (tmp_path / "evaluation" / "piqa").mkdir(parents=True)
    assert set_folders(tmp_path, piqa) == [tmp_path / "evaluation/piqa"]


def write(folder, name, *found):
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in found))
    return folder


def test_rows_by_hand(tmp_path):
    found = rows.winogrande(
        write(tmp_path, "winogrande.jsonl", {"context_options": ["Ann saw Al so Ann", "Ann saw Al so Al"],
              "continuation": "ran.", "gold": 1}), "",
    )["validation"]  # fmt: skip
    assert found == [{"sentence": "Ann saw Al so _ ran.", "option1": "Ann", "option2": "Al", "answer": "2"}]
    query = "Passage: It is.\nQuestion: is it\nQuestion: is it?\n"
    found = rows.boolq(write(tmp_path, "boolq.jsonl", {"query": query, "choices": ["no", "yes"], "gold": 1}), "")
    assert found["validation"] == [{"passage": "It is.\nQuestion: is it", "question": "is it", "label": 1}]
    found = rows.arc_easy(
        write(write(tmp_path, "train.jsonl"), "arc_easy.jsonl",
              {"query": "Question: What?", "choices": ["a", "b", "c"], "gold": 2}), "",
    )  # fmt: skip
    choices = {"text": ["a", "b", "c"], "label": ["A", "B", "C"]}
    assert found == {"train": [], "test": [{"question": "What?", "choices": choices, "answerKey": "C"}]}
    exam = {"passage": "P. ", "question": "Q?", "options": ["(A)1", "(B)2"], "label": "B", "answer": None}
    found = rows.agieval(write(tmp_path, "sat-en.jsonl", exam), "sat-en")["test"]
    query = "P. Q: Q? Answer Choices: (A)1 (B)2\nA: Among A through B, the answer is"
    assert found == [{"query": query, "choices": ["(A)1", "(B)2"], "gold": [1]}]


def test_what_is_wrong_with_a_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"valid.jsonl:1: no such file"):
        rows.piqa(tmp_path, "")
    (tmp_path / "valid.jsonl").write_text('{"goal": "x"}\n[1]\n')
    with pytest.raises(DataError, match=r"valid.jsonl:2: expected an object, got '\[1\]"):
        rows.piqa(tmp_path, "")
    (tmp_path / "valid.jsonl").write_text('{"goal": \n')
    with pytest.raises(DataError, match=r"valid.jsonl:1: no JSON"):
        rows.piqa(tmp_path, "")
    write(tmp_path, "boolq.jsonl", {"query": "Passage: x", "choices": ["no", "yes"], "gold": 1})
    with pytest.raises(DataError, match=r"boolq.jsonl:1: expected a passage, a question"):
        rows.boolq(tmp_path, "")


COUNTS = {
    "mmlu": 14042, "hellaswag": 10042, "piqa": 1838, "siqa": 1954, "boolq": 3270, "winogrande": 1267,
    "commonsense_qa": 1221, "openbookqa": 500, "arc_easy": 2376, "arc_challenge": 1172, "triviaqa": 3000,
    "nq_open": 3610, "humaneval": 164, "mbpp": 500, "gsm8k": 1319, "math": 5000, "agieval": 3852, "bbh": 6511,
    "bbq": 11092, "crows_pairs": 1508, "winogender": 720, "winobias_type1": 792, "winobias_type2": 792,
    "truthfulqa_mc1": 817, "toxigen": 3100, "bold": 23679,
}  # fmt: skip


@needs_data
@pytest.mark.parametrize("name", COUNTS)
def test_all_rows_of_the_real_sets(name):
    """As many as their README counts."""
    one = BENCHMARKS[name]
    folders = set_folders(REAL_DATA, one)
    found = [row for part in one.tasks.values() for folder in folders for row in one.read(folder, part)[one.tested]]
    assert len(found) == COUNTS[name]


@needs_data
def test_what_was_cut_apart_is_joined_again_by_lm_eval_s_templates():
    """Prompts of the files, and those that lm-eval's templates make of the rows."""
    base = REAL_DATA / "evaluation"
    for row, source in zip(
        rows.boolq(base / "boolq", "")["validation"], rows.read_rows(base / "boolq" / "boolq.jsonl"), strict=True
    ):
        joined = f"Passage: {row['passage']}\nQuestion: {row['question']}?"
        assert joined == source["query"].rstrip().removesuffix("?") + "?"
    for row, source in zip(
        rows.siqa(base / "siqa", "")["validation"], rows.read_rows(base / "siqa" / "validation.jsonl"), strict=True
    ):
        assert f"{row['context']} {row['question']}" == source["question"]
    for row, source in zip(
        rows.winogrande(base / "winogrande", "")["validation"],
        rows.read_rows(base / "winogrande" / "winogrande.jsonl"), strict=True,
    ):  # fmt: skip
        place = row["sentence"].index("_")
        options = [row["sentence"][:place] + row[option] for option in ("option1", "option2")]
        assert options == source["context_options"]
        assert row["sentence"][place + 1 :].strip() == source["continuation"].strip()
