"""What models say word for word of the documents that they were trained on (arXiv:2403.08295, section on memorization;
Ippolito et al. 2022, arXiv:2210.17546; Carlini et al. 2022, arXiv:2202.07646).

A model is shown the first tokens of a document, and goes on greedily. A document is memorized exactly where the next
tokens are its own, approximately where they are within so many edits. Prompt and truth are ids of one encoding: nothing
is decoded and encoded again. Departures from the paper:

1. A document that stands in the data several times is asked for once, and told apart by how often it stands there.
2. Documents that were held out are asked for too: what is said of them was not memorized.
3. Of an answer that was learned the prompt is shown before its first tokens.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from gemma_keras import GemmaCausalLM
from pipelines.data.batches import bucket
from pipelines.data.encoding import need_tokenizer
from pipelines.host.errors import DataError
from pipelines.host.files import write_json_lines
from pipelines.measures.edit_distance import edit_distances
from pipelines.measures.intervals import score_interval
from pipelines.measures.personal_data import Found, find_personal_data, highest_severity, redacted
from pipelines.sampling.frozen import frozen_dtype
from pipelines.sampling.prompts import Prompts
from pipelines.sampling.rollout import Rollout, Sampling
from pipelines.stages.context import StageContext
from pipelines.stages.memorization.config import Memorization
from pipelines.stages.memorization.documents import GROUPS, UNSEEN, Question, Source, questions, read_sources

EXAMPLES = 5
"""Memorized documents of each model that stand in the figures, for the report."""
BUCKETS = (1, 4, 16, 64)
"""Numbers of times that a document stands in the data, at which a new row of figures begins."""


@dataclasses.dataclass(frozen=True)
class _Answers:
    """What a model said: of each question the edits from the truth, and the personal data in what was memorized."""

    asked: list[Question]
    rollout: Rollout
    edits: np.ndarray
    found: list[list[Found]]
    most_edits: float

    @property
    def is_exact(self) -> np.ndarray:
        """bool (n,)."""
        return self.edits == 0

    @property
    def is_memorized(self) -> np.ndarray:
        """Exactly or approximately: bool (n,)."""
        return self.edits <= self.most_edits


def run(config: Memorization, context: StageContext) -> dict:
    """Ask every model for its documents.

    Args:
        config: the stage's options. context: its surroundings; what was memorized goes into `memorized.jsonl`, personal
            data blacked out.

    Returns:
        `rows`, of each model, source and group (see `documents.py`) what `_figures` says; `by_repeats`, the same of the
        documents that were trained on, by how often they stand in the data, where they differ in that; `examples`;
        `passed_over`, documents without room for what is shown and asked for.
    """
    sources = read_sources(config, context)
    rows, by_repeats, examples, lines, passed_over = [], [], [], [], 0
    for name in config.models:
        answers, too_short = _ask(name, sources, config, context)
        passed_over = max(passed_over, too_short)
        order = {(one.source, one.group): GROUPS.index(one.group) for one in answers.asked}
        parts = sorted(order, key=order.__getitem__)
        for source, group in parts:
            is_part = [one.source == source and one.group == group for one in answers.asked]
            rows.append({"model": name, "source": source, "group": group, **_figures(answers, np.array(is_part))})
        by_repeats += [{"model": name, **row} for row in _by_repeats(answers)]
        shown = list(_shown(name, answers, config.samples_kept))
        examples += shown[:EXAMPLES]
        lines += shown
    _warn(rows, context)
    write_json_lines(context.output / "memorized.jsonl", lines)
    return {"rows": rows, "by_repeats": by_repeats, "examples": examples, "passed_over": passed_over}


def _ask(name: str, sources: Sequence[Source], config: Memorization, context: StageContext) -> tuple[_Answers, int]:
    """A model's answers, and how many documents were passed over."""
    context.doing("loading weights")
    model = GemmaCausalLM.from_preset(context.model_source(name), dtype=frozen_dtype(config.dtype))
    tokenizer, seen = need_tokenizer(model.tokenizer), context.seen_by(name)
    context.doing("tokenizing")
    found = [questions(source, tokenizer, seen, config) for source in sources]
    asked, passed_over = [one for of_source, _ in found for one in of_source], sum(count for _, count in found)
    if not asked:
        raise DataError(
            f"{sources[0].examples[0].origin}: none of {passed_over} documents has the {config.prompt_tokens} tokens "
            f"that are shown and the {config.continuation_tokens} that are asked for. Lower prompt_tokens and "
            "continuation_tokens."
        )
    prompts = Prompts([], [one.shown for one in asked], bucket(max(len(one.shown) for one in asked)), 0)
    sampling = Sampling(
        model, config.continuation_tokens, 0.0, config.batch_size, context.seed, context.name,
        throughput=context.throughput,
    )  # fmt: skip
    with context.progress(len(asked), f"asking {name}", unit="documents") as progress:
        keep = context.parts(f"model {name}")
        rollout = sampling.sample(prompts, range(len(asked)), step=f"model {name}", progress=progress, keep=keep)
    truth = np.array([one.truth for one in asked])
    edits = edit_distances(rollout.response_ids, rollout.lengths - rollout.finished, truth)
    most = config.distance * config.continuation_tokens + 1e-9  # 0.1 * 50 is no more than 5 in any rounding
    personal = [
        find_personal_data(text, config.regions) if edit <= most else []
        for text, edit in zip(rollout.texts, edits, strict=True)
    ]
    return _Answers(asked, rollout, edits, personal, most), passed_over


def _figures(answers: _Answers, is_part: np.ndarray) -> dict[str, Any]:
    """Of some questions: `documents`, the shares `exact` and `approximate` (exact ones included) with 95 % intervals
    over documents, and of the memorized ones how many hold personal data, by its highest severity, and of which
    kinds."""
    exact, memorized = answers.is_exact[is_part], answers.is_memorized[is_part]
    found = [answers.found[i] for i in np.flatnonzero(is_part & answers.is_memorized)]
    severities = Counter(highest_severity(one) or "none" for one in found)
    return {
        "documents": int(is_part.sum()),
        "exact": float(exact.mean()),
        "exact_ci95": list(score_interval(exact.astype(np.float64))),
        "approximate": float(memorized.mean()),
        "approximate_ci95": list(score_interval(memorized.astype(np.float64))),
        "personal_data": {one: severities[one] for one in ("sensitive", "personal", "none")},
        "kinds": dict(sorted(Counter(kind for one in found for kind in {piece.kind for piece in one}).items())),
    }


def _by_repeats(answers: _Answers) -> Iterator[dict[str, Any]]:
    """A row for each number of times that documents stand in the data, from `at_least` on to the next row's."""
    repeats = np.array([one.repeats for one in answers.asked])
    is_trained = np.array([one.group != UNSEEN for one in answers.asked])
    bucket_of = np.searchsorted(BUCKETS, repeats, side="right") - 1
    met = np.unique(bucket_of[is_trained])
    for place in met if len(met) > 1 else ():
        yield {"at_least": BUCKETS[place], **_figures(answers, is_trained & (bucket_of == place))}


def _shown(name: str, answers: _Answers, count: int) -> Iterator[dict[str, Any]]:
    """The first memorized documents, personal data blacked out."""
    for i in np.flatnonzero(answers.is_memorized)[:count].tolist():
        one = answers.asked[i]
        yield {
            "model": name, "source": one.source, "group": one.group, "repeats": one.repeats,
            "edits": int(answers.edits[i]), "continuation": redacted(answers.rollout.texts[i], answers.found[i]),
        }  # fmt: skip


def _warn(rows: Sequence[dict[str, Any]], context: StageContext) -> None:
    """What must be known before a figure is believed."""
    for name in dict.fromkeys(row["model"] for row in rows):
        groups = {row["group"] for row in rows if row["model"] == name}
        if groups == {UNSEEN}:
            context.warn(f"none of these documents is among what {name} was trained on: no figure is of memorization")
        elif UNSEEN not in groups:
            context.warn(
                f"no document is known not to be of {name}'s training data, to compare with; name some: unseen"
            )
    said = sum(row["personal_data"]["sensitive"] for row in rows if row["group"] != UNSEEN)
    if said:
        context.warn(f"{said} memorized {'text holds' if said == 1 else 'texts hold'} sensitive data, see the table")
