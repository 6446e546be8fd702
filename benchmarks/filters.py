"""What the filters of data find and what they miss: faults planted in real text, and real text as it is.

Run as `python -m benchmarks.filters --data FOLDER`, with the folder that holds gsm8k, hh_rlhf_harmless and evaluation/;
prints the tables of the section in README.md. Needs the extras `filters`, `toxicity` and `test` (faker). On one core it
takes five minutes.
"""

import argparse
import itertools
import json
import random
import string
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import faker

from pipelines.data.canonical import Piece
from pipelines.data.contents import normalized
from pipelines.data.examples import load_examples
from pipelines.measures.personal_data import KINDS, find_personal_data
from pipelines.schema.base import Use
from pipelines.schema.data import FileData
from pipelines.scoring.toxicity import lexicon
from pipelines.stages.data_filtering.filters.duplicates import SHINGLE
from pipelines.stages.data_filtering.filters.registry import FILTERS, OPTIONS

Row = list[Piece]
PLANTED = 1000
SENTENCES = ("You can reach me under {}.", "My details: {}.", "{}", "Thanks! ({})", "Ann, {}, see you")
CLAIMS = (
    "I am {name}.", "Hello, I'm {name}, how can I help?", "My name is {name}.", "I am an AI assistant called {name}.",
    "As an AI language model developed by {maker}, I cannot do that.", "I was created by {maker}.",
    "I am a large language model trained by {maker}.", "I'm {name}, a model made by {maker}.",
)  # fmt: skip
ASSISTANTS = (("ChatGPT", "OpenAI"), ("Claude", "Anthropic"), ("Llama", "Meta AI"), ("Qwen", "Alibaba Cloud"))


class Here:
    """The surroundings of a filter outside a stage."""

    base_folder = Path(".")
    inputs: dict[str, Path] = {}

    def warn(self, message: str) -> None:
        """Says nothing."""

    def model_source(self, from_: str | None) -> str:
        """None is needed."""
        raise LookupError(from_)


def opened(name: str, use: Use = "instruction", **options: Any) -> Any:
    """A filter that can judge."""
    one = FILTERS[name](OPTIONS[name].model_validate({"name": name, **options}), use)
    one.open(Here())
    return one


def read(path: Path) -> list[dict[str, Any]]:
    """Rows of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def real_rows(data: Path) -> dict[str, list[Row]]:
    """Rows of three sets, each a prompt and what is learned from it."""
    gsm8k = read(data / "gsm8k" / "train.jsonl")
    mbpp = read(data / "evaluation" / "mbpp" / "mbpp.jsonl")
    hh = FileData(path=str(data / "hh_rlhf_harmless" / "pairs.jsonl"), format="hh_rlhf", on_bad_row="lenient")
    chosen = [one.messages for one in load_examples(hh, "instruction", data)]
    return {
        "GSM8K": [_row([row["question"]], row["answer"]) for row in gsm8k],
        "HH-RLHF": [_row([turn["content"] for turn in turns[:-1]], turns[-1]["content"]) for turns in chosen],
        "MBPP": [_row([row["text"]], row["code"]) for row in mbpp],
    }


def _row(asked: Sequence[str], answer: str) -> Row:
    return [*(Piece("prompt", text) for text in asked), Piece("completion", answer)]


def personal_values(draw: random.Random) -> dict[str, Callable[[], str]]:
    """Kind → what makes a value of it that nobody has."""
    people = faker.Faker("en_US")
    people.seed_instance(7)

    def some(letters: str, count: int) -> str:
        return "".join(draw.choices(letters, k=count))

    upper, mixed = string.ascii_uppercase + string.digits, string.ascii_letters + string.digits
    keys = (
        lambda: "AKIA" + some(upper, 16), lambda: "ghp_" + some(mixed, 36), lambda: "sk-" + some(mixed, 48),
        lambda: "hf_" + some(mixed, 34), lambda: "AIza" + some(mixed, 35), lambda: f"api_key = '{some(mixed, 32)}'",
    )  # fmt: skip
    return {
        "email": people.email, "phone": people.phone_number, "credit_card": people.credit_card_number,
        "iban": people.iban, "us_ssn": people.ssn, "api_key": lambda: draw.choice(keys)(),
        "ip_address": people.ipv4_public, "street_address": people.street_address,
    }  # fmt: skip


def personal_data(rows: Sequence[Row]) -> Iterator[str]:
    """Recall and precision of each kind, whole or in part, in answers of real rows."""
    draw = random.Random(7)
    for kind, make in personal_values(draw).items():
        found = right = others = 0
        for number in range(PLANTED):
            host = draw.choice(rows)[-1].text
            if find_personal_data(host):
                continue
            value = make()
            text = f"{host} {SENTENCES[number % len(SENTENCES)].format(value)}"
            start = text.rindex(value)
            pieces = find_personal_data(text)
            hits = [one for one in pieces if one.start < start + len(value) and one.end > start]
            found += any(one.kind == kind for one in hits)
            right += 1
            others += sum(one.kind != kind for one in pieces)
        yield f"| {kind} | {right} | {share(found, right)} | {share(found, found + others)} |"


def false_alarms(rows: dict[str, list[Row]]) -> Iterator[str]:
    """Rows per 1,000 of each set that a filter drops as they are."""
    kinds = {"personal_data, " + kind: {"leave": [one for one in KINDS if one != kind]} for kind in _KINDS_SHOWN}
    options: dict[str, dict[str, Any]] = {
        "quality": {}, "language": {}, "personal_data": {}, **kinds, "toxicity": {}, "self_identification": {},
    }  # fmt: skip
    for title, chosen in options.items():
        one = opened(title.partition(",")[0], **chosen)
        dropped = [sum(bool(one.judge(row).reason) for row in of_set) for of_set in rows.values()]
        counts = [f"{1000 * count / len(of_set):.1f}" for count, of_set in zip(dropped, rows.values(), strict=True)]
        yield f"| {title} | {' | '.join(counts)} |"


_KINDS_SHOWN = ("email", "phone", "street_address", "ip_address", "credit_card", "api_key")


def claims(rows: Sequence[Row]) -> Iterator[str]:
    """Recall of planted claims, and how many quoted or spoken-of ones are dropped by mistake."""
    draw, one = random.Random(3), opened("self_identification")
    plants = [claim.format(name=name, maker=maker) for claim in CLAIMS for name, maker in ASSISTANTS]
    harmless = [
        text.format(name=name, maker=maker)
        for text in (
            "{name} is a model by {maker}.", 'It said: "I am {name}."', "I am not {name}.", "I have heard of {name}.",
            "Unlike {name}, I was not made by {maker}.",
        )
        for name, maker in ASSISTANTS
    ]  # fmt: skip
    for title, texts in (("claims", plants), ("quoted, denied or spoken of", harmless)):
        hosts = [draw.choice(rows) for _ in range(PLANTED)]
        planted = [
            [*host[:-1], Piece("completion", f"{host[-1].text} {text}")]
            for host, text in zip(hosts, itertools.cycle(texts), strict=False)
        ]
        yield f"| {title} | {PLANTED} | {share(sum(bool(one.judge(row).reason) for row in planted), PLANTED)} |"


def duplicates(rows: Sequence[Row]) -> Iterator[str]:
    """Near duplicates against the similarity of all pairs, at three thresholds."""
    draw = random.Random(3)
    texts: list[str] = []
    for row in rows[:500]:
        words = normalized(row[0].text + " " + row[-1].text).split()
        copy = list(words)
        for place in draw.sample(range(len(words)), draw.randint(0, len(words) // 3)):
            copy[place] = f"x{draw.randint(0, 10**6)}"
        texts += [" ".join(words), " ".join(copy)]
    grams = [_grams(text) for text in texts]
    for near in (0.5, 0.7, 0.9):
        one = opened("duplicates", "text", near=near)
        kept: list[int] = []
        both = filter_alone = exact_alone = 0
        farthest = 0.0
        for number, text in enumerate(texts):
            nearest = max((_jaccard(grams[number], grams[other]) for other in kept), default=0.0)
            is_dropped = bool(one.meet(one.signature([Piece("text", text)]), str(number)).reason)
            both += nearest >= near and is_dropped
            filter_alone += is_dropped and nearest < near
            exact_alone += nearest >= near and not is_dropped
            if is_dropped != (nearest >= near):
                farthest = max(farthest, abs(nearest - near))
            if not is_dropped:
                kept.append(number)
        recall, precision = share(both, both + exact_alone), share(both, both + filter_alone)
        yield f"| {near} | {both + exact_alone} | {recall} | {precision} | {farthest:.3f} |"


def _grams(text: str) -> set[tuple[str, ...]]:
    words = text.split()
    return {tuple(words[i : i + SHINGLE]) for i in range(max(1, len(words) - SHINGLE + 1))}


def _jaccard(a: set[Any], b: set[Any]) -> float:
    return len(a & b) / len(a | b)


WAYS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "case": str.upper,
    "spacing": lambda text: text.replace(" ", " \n "),
    "punctuation": lambda text: text.replace(" ", ", "),
    "cut at 80 %": lambda text: text[: len(text) * 8 // 10],
}


def hidden_questions(data: Path, rows: Sequence[Row]) -> Iterator[str]:
    """Test questions of GSM8K, hidden in other text."""
    test = read(data / "gsm8k" / "test.jsonl")
    draw = random.Random(5)
    chosen = draw.sample(range(len(test)), 200)
    for n in (13, 8):
        one = opened("decontaminate", suite="gsm8k", data=str(data), n=n)
        for title, hide in WAYS.items():
            found = 0
            for number in chosen:
                before, after = (draw.choice(rows)[0].text for _ in range(2))
                verdict = one.judge([Piece("text", f"{before} {hide(test[number]['question'])} {after}")])
                found += number + 1 in verdict.notes.get("met", {}).get("gsm8k", ())
            yield f"| {n} | {title} | {found} of {len(chosen)} |"


def true_overlap(data: Path, rows: Sequence[Row]) -> Iterator[str]:
    """Rows of GSM8K's training set that share 13 words in a row with its test set."""
    one = opened("decontaminate", suite="gsm8k", data=str(data))
    for number, row in enumerate(rows, 1):
        verdict = one.judge(row)
        if verdict.reason:
            tests = ", ".join(map(str, verdict.notes["met"]["gsm8k"]))
            yield f"| {number} | {tests} | {verdict.notes['coverage']:.2f} |"


def whole_suite(data: Path, rows: dict[str, list[Row]]) -> Iterator[str]:
    """Rows of each set that hold a test row of any benchmark of the paper's suite."""
    for name, of_set in rows.items():
        one = opened("decontaminate", suite="gemma_paper", data=str(data))
        dropped = 0
        for row in of_set:
            verdict = one.judge(row)
            one.add(verdict)
            dropped += bool(verdict.reason)
        met = {bench: row["met"] for bench, row in one.figures()["benchmarks"].items() if row["met"]}
        said = ", ".join(f"{count} of {bench}" for bench, count in met.items()) or "none"
        yield f"| {name} | {len(of_set)} | {dropped} | {said} |"


def toxigen(data: Path) -> Iterator[str]:
    """How well the list of swear words tells hateful from neutral, by group: the area under its ROC curve, over prompts
    and over their lines, each once, as the prompts of a group are made of few lines."""
    score = lexicon()
    groups: dict[str, tuple[dict[str, bool], dict[str, bool]]] = {}
    for row in read(data / "evaluation" / "toxigen" / "prompts.jsonl"):
        is_hate = row["kind"] == "hate"
        for group in (row["group"], "all"):
            prompts, lines = groups.setdefault(group, ({}, {}))
            prompts[row["prompt"]] = is_hate
            lines.update({line.removeprefix("- "): is_hate for line in row["prompt"].split("\n") if len(line) > 2})
    for group, found in sorted(groups.items(), key=lambda one: (one[0] == "all", one[0])):
        cells = []
        for texts in found:
            hateful, neutral = (
                [score("", text) for text, is_hate in texts.items() if is_hate == of] for of in (True, False)
            )
            if not hateful or not neutral:
                break
            cells += [
                str(len(texts)), f"{area(hateful, neutral):.3f}",
                f"{share(sum(hateful), len(hateful))} / {share(sum(neutral), len(neutral))}",
            ]  # fmt: skip
        else:
            yield f"| {group} | {' | '.join(cells)} |"


def area(positive: Sequence[float], negative: Sequence[float]) -> float:
    """How often a positive scores above a negative, ties by half: the area under the ROC curve."""
    wins = sum((p > n) + (p == n) / 2 for p in positive for n in negative)
    return wins / (len(positive) * len(negative))


def share(part: float, whole: float) -> str:
    """`98.3 %`; a dash of nothing."""
    return f"{100 * part / whole:.1f} %" if whole else "–"


def table(title: str, head: Sequence[str], rows: Iterable[str]) -> None:
    """Print a table of Markdown below its title."""
    print(f"#### {title}\n\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in rows:
        print(row, flush=True)
    print()


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the sets")
    data = parser.parse_args().data
    rows = real_rows(data)
    hosts = [*rows["GSM8K"][:500], *rows["HH-RLHF"][:500], *rows["MBPP"][:500]]
    table("Personal data, planted in answers", ("kind", "planted", "recall", "precision"), personal_data(hosts))
    table("Rows dropped as they are, per 1,000", ("filter", *rows), false_alarms(rows))
    table("Claims of another name or maker, planted in answers", ("planted", "rows", "dropped"), claims(hosts))
    table(
        "Near duplicates, against all pairs",
        ("near", "near pairs", "recall", "precision", "farthest error"),
        duplicates(rows["GSM8K"]),
    )
    table(
        "GSM8K's test questions, hidden in training text", ("n", "how", "found"), hidden_questions(data, rows["GSM8K"])
    )
    table("GSM8K's training rows with 13 words of a test row", ("training row", "test rows", "coverage"),
          true_overlap(data, rows["GSM8K"]))  # fmt: skip
    table("Test rows of the whole suite", ("set", "rows", "dropped", "test rows met"), whole_suite(data, rows))
    found = "found of hateful / neutral"
    table(
        "ToxiGen by the list of swear words", ("group", "prompts", "AUC", found, "lines", "AUC", found), toxigen(data)
    )


if __name__ == "__main__":
    main()
