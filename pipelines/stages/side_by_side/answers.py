"""The answers that are compared: sampled from each policy, or those of rows whose better one is known."""

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from gemma_keras import GemmaCausalLM
from gemma_keras.checkpoints.resolve import open_model
from pipelines.data.columns import Preference, Prompt
from pipelines.data.contents import prompt_hashes
from pipelines.data.hh_rlhf import Message
from pipelines.data.turns import MODEL_ROLES
from pipelines.host.progress import Progress
from pipelines.measures.intervals import groups_of
from pipelines.sampling.frozen import frozen_dtype
from pipelines.sampling.prompts import encode_prompts
from pipelines.sampling.rollout import Sampling
from pipelines.schema.named_data import spec_of
from pipelines.scoring.pairwise.both_orders import PairToJudge
from pipelines.scoring.pairwise.making import own_rubric
from pipelines.scoring.pairwise.questions import rubric_for
from pipelines.stages.context import StageContext
from pipelines.stages.side_by_side.config import SideBySide

CHOSEN, REJECTED = "chosen", "rejected"
"""What the answers of rows are called in the place of policies."""
ALL = "all"
"""What the set is called where there is one without a name, and the table's line over all of them."""


@dataclasses.dataclass(frozen=True)
class PromptSet:
    """Prompts with a name.

    Args:
        name: what figures call them. rubric: what makes an answer to them good. examples: the prompts, or the pairs.
    """

    name: str
    rubric: str
    examples: Sequence[Any]


@dataclasses.dataclass(frozen=True)
class Answers:
    """Answers to the prompts of all sets, in one order.

    Args:
        sets: name of the set of each prompt. examples: its row. rubrics: by set. texts: by policy, the answers.
        dropped: how many prompts were left out, as they leave no room for an answer.
    """

    sets: list[str]
    examples: list[Prompt | Preference]
    rubrics: dict[str, str]
    texts: dict[str, list[str]]
    dropped: int

    def pairs(self, policy: str, baseline: str) -> list[PairToJudge]:
        """A policy's answer and the baseline's to each prompt."""
        return [
            PairToJudge(
                one.prompt, (first, second), one.origin, _identifier(one.prompt, first, second), self.rubrics[name]
            )
            for one, name, first, second in zip(
                self.examples, self.sets, self.texts[policy], self.texts[baseline], strict=True
            )
        ]

    def groups(self) -> np.ndarray:
        """int (n,), equal where prompts are the same."""
        return groups_of(prompt_hashes(example).group for example in self.examples)


def read_sets(config: SideBySide, context: StageContext) -> list[PromptSet]:
    """The prompts, or pairs, at most `config.prompts` of each set."""
    named = [(one.name, spec_of(one)) for one in config.data] if isinstance(config.data, list) else [(ALL, config.data)]
    own, use = own_rubric(config, context), config.reads()[0]
    return [
        PromptSet(name, own or rubric_for(name), context.examples(data, use)[: config.prompts]) for name, data in named
    ]


def answers_of_rows(sets: Sequence[PromptSet]) -> Answers:
    """The chosen and the rejected answer of each row."""
    rows = [(one.name, example) for one in sets for example in one.examples]
    texts = {
        REJECTED: [_response_text(example.rejected) for _, example in rows],
        CHOSEN: [_response_text(example.chosen) for _, example in rows],
    }
    rubrics = {one.name: one.rubric for one in sets}
    return Answers([name for name, _ in rows], [example for _, example in rows], rubrics, texts, 0)


def sample_answers(sets: Sequence[PromptSet], config: SideBySide, context: StageContext) -> Answers:
    """One answer of each policy to each prompt that leaves room for it in all of them; one policy at a time is in
    memory."""
    policies, total = config.compare or [], sum(len(one.examples) for one in sets)
    kept = [dataclasses.replace(one, examples=_fitting(one.examples, config, context)) for one in sets]
    count = sum(len(one.examples) for one in kept)
    with context.progress(count * len(policies), "sampling answers", unit="responses") as progress:
        texts = {name: list(_sampled(name, kept, config, context, progress)) for name in policies}
    return Answers(
        [one.name for one in kept for _ in one.examples],
        [example for one in kept for example in one.examples],
        {one.name: one.rubric for one in kept},
        texts,
        total - count,
    )


def _fitting(examples: Sequence[Prompt], config: SideBySide, context: StageContext) -> list[Prompt]:
    """The prompts that leave room for an answer in the tokens of every policy."""
    found = list(examples)
    for name in config.compare or []:
        tokenizer = open_model(context.model_source(name), with_weights=False).tokenizer
        found = encode_prompts(tokenizer, found, config.max_length, config.max_new_tokens).examples
    return found


def _sampled(
    name: str, sets: Sequence[PromptSet], config: SideBySide, context: StageContext, progress: Progress
) -> Iterator[str]:
    context.doing("loading weights")
    model = GemmaCausalLM.from_preset(context.model_source(name), dtype=frozen_dtype(config.dtype))
    sampling = Sampling(
        model, config.max_new_tokens, config.temperature, config.batch_size, context.seed, context.name,
        throughput=context.throughput,
    )  # fmt: skip
    encoded = [
        encode_prompts(model.tokenizer, list(one.examples), config.max_length, config.max_new_tokens) for one in sets
    ]
    length = max(one.length for one in encoded)
    for one, prompts in zip(sets, encoded, strict=True):
        prompts = dataclasses.replace(prompts, length=length)  # the shapes of one set for all
        keep = context.parts(f"policy {name}/{one.name}")
        step = f"policy {name}, {one.name}"
        yield from sampling.sample(prompts, range(len(prompts)), step=step, progress=progress, keep=keep).texts


def _response_text(response: str | list[Message]) -> str:
    """An answer as text; one that goes on over several turns names who speaks."""
    if isinstance(response, str):
        return response
    return "\n\n".join(f"{'Assistant' if one['role'] in MODEL_ROLES else 'User'}: {one['content']}" for one in response)


def _identifier(prompt: str | list[Message], *answers: str) -> str:
    """Says nothing of who answered, and is the same in the run that reads the ratings."""
    return hashlib.sha256(repr([prompt, *answers]).encode()).hexdigest()[:16]
