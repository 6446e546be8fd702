"""What an evaluation measures of one policy: its responses, their scores, its KL, perplexity and accuracy."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from gemma_keras import GemmaCausalLM, backends
from pipelines.data.batches import bucket
from pipelines.data.encoding import encode_instructions
from pipelines.data.shapes import alike_lengths
from pipelines.graders.answers import exact_answer
from pipelines.host.progress import Progress
from pipelines.measures.intervals import Bounds
from pipelines.measures.judges import difference_with_interval, mean_with_interval
from pipelines.sampling.exact_kl import ExactKL
from pipelines.sampling.prompts import Prompts
from pipelines.sampling.reference_policy import ReferencePolicy
from pipelines.sampling.rollout import Rollout, Sampling
from pipelines.schema.ensembles import Ensemble
from pipelines.scoring.base import Scores
from pipelines.scoring.raters import Rater
from pipelines.stages.context import StageContext
from pipelines.stages.evaluation.config import Evaluation
from pipelines.training.language_batches import language_batches
from pipelines.training.language_model import next_token_loss_sum
from pipelines.training.loop import count_target_tokens, model_inputs


@dataclasses.dataclass(frozen=True)
class Measured:
    """One value a response.

    Attributes:
        values: float (n,). bounds: lowest and highest possible value, None where there are none.
    """

    values: np.ndarray
    bounds: Bounds | None

    def mean(self, groups: np.ndarray) -> dict:
        """See `mean_with_interval`."""
        return mean_with_interval(self.values, groups, self.bounds)

    def difference(self, baseline: "Measured", groups: np.ndarray) -> dict:
        """See `difference_with_interval`."""
        return difference_with_interval(self.values, baseline.values, groups, self.bounds)


@dataclasses.dataclass(frozen=True)
class PolicyResult:
    """One policy's part of an evaluation.

    Attributes:
        rollout: one response to each prompt.
        values: what was measured of each response, by name: `judge_score`, where known `gold` and `accuracy`.
        gold_parts: the same of the parts of gold, by their names.
        figures: plain JSON.
    """

    rollout: Rollout
    values: dict[str, Measured]
    gold_parts: dict[str, Measured]
    figures: dict

    @property
    def scores(self) -> np.ndarray:
        """The judge's: float (n,)."""
        return self.values["judge_score"].values


def measure_policy(
    name: str,
    model: GemmaCausalLM,
    reference: GemmaCausalLM,
    prompts: Prompts,
    groups: np.ndarray,
    judge: Rater,
    gold: Rater | None,
    config: Evaluation,
    context: StageContext,
    progress: Progress,
) -> PolicyResult:
    """Sample one response to each prompt and measure it.

    Args:
        name: of the policy; it keys the draws, so that policies are sampled independently.
        model: the policy. reference: what its KL is measured to; the same object gives exactly 0.
        groups: int (n,), equal where prompts are the same.
        judge: whose scores decide pairs. gold: the built-in task's reward, or None.
        progress: advanced by one a response.
    """
    sampling = Sampling(
        model, config.max_new_tokens, config.temperature, config.batch_size, context.seed, context.name,
        throughput=context.throughput,
    )  # fmt: skip
    keep = context.parts(f"policy {name}")
    rollout = sampling.sample(prompts, range(len(prompts)), step=f"policy {name}", progress=progress, keep=keep)
    judged = keep("judge", lambda: _judged(judge.score(prompts.examples, rollout)))
    values = {"judge_score": Measured(judged[_TOTAL], judge.bounds)}
    gold_parts = {}
    if gold is not None:
        found = gold.score(prompts.examples, rollout)
        values["gold"] = Measured(found.total, gold.bounds)
        gold_parts = {part: Measured(scores, gold.bounds) for part, scores in found.parts.items()}
    figures: dict = {name: measured.mean(groups) for name, measured in values.items()}
    if gold_parts:
        figures["gold_parts"] = {part: measured.mean(groups) for part, measured in gold_parts.items()}
    if isinstance(config.judge, Ensemble):
        figures["judge_parts"] = {
            part: mean_with_interval(one, groups, None) for part, one in judged.items() if part != _TOTAL
        }
    figures |= _kl(keep("kl", lambda: {"token": _token_kl(model, reference, rollout, config)})["token"], rollout)
    figures["accuracy"] = None
    is_right = _is_right(prompts, rollout)
    if is_right is not None:
        values["accuracy"] = Measured(is_right, (0.0, 1.0))
        accuracy = values["accuracy"].mean(groups)
        figures |= {"accuracy": accuracy["mean"], "accuracy_ci95": accuracy["ci95"]}
    figures["mean_length"] = float(rollout.lengths.mean())
    figures["finished"] = float(rollout.finished.mean())
    return PolicyResult(rollout, values, gold_parts, figures)


_TOTAL = "(total)"


def _judged(scores: Scores) -> dict[str, np.ndarray]:
    """As arrays of one part of the work: `_TOTAL`, and the parts by their names."""
    return {_TOTAL: scores.total, **scores.parts}


def _token_kl(model: GemmaCausalLM, reference: GemmaCausalLM, rollout: Rollout, config: Evaluation) -> np.ndarray:
    """In nats, float (n, r); greedy decoding is measured at temperature 1."""
    if model is reference:
        return np.zeros(rollout.response_mask.shape)
    return ExactKL(model, ReferencePolicy(reference), config.temperature or 1.0, config.batch_size)(rollout)


def _kl(token_kl: np.ndarray, rollout: Rollout) -> dict[str, float]:
    """`kl` a token and `kl_sequence` a response, in nats."""
    return {"kl": float(token_kl.sum() / rollout.lengths.sum()), "kl_sequence": float(token_kl.sum(axis=1).mean())}


def _is_right(prompts: Prompts, rollout: Rollout) -> np.ndarray | None:
    """Each response by `exact_answer`: float (n,); None where an answer is missing.

    The built-in task words its answers in sentences, and its gold part `right` reads those: it is scored there and not
    here.
    """
    examples = prompts.examples
    if any(example.answer is None or example.item is not None for example in examples):
        return None
    return np.array(
        [exact_answer(text, example.answer) for text, example in zip(rollout.texts, examples, strict=True)], np.float64
    )


def load_demonstrations(config: Evaluation, context: StageContext) -> list:
    """Held-out responses for the perplexity, at most `config.prompts`; none where the data has only prompts."""
    if "instruction" not in config.reads():
        return []
    return context.examples(config.data, "instruction")[: config.prompts]


def perplexity(model: GemmaCausalLM, demonstrations: Sequence, max_length: int, batch_size: int) -> float | None:
    """exp of the mean negative log-probability of a response token; None without demonstrations that fit.

    Args:
        demonstrations: examples with responses. max_length: tokens of prompt and response; longer ones are left out.
    """
    if not demonstrations:
        return None
    examples = encode_instructions(model.tokenizer, demonstrations, max_length, "drop").examples
    forward = backends.compile_forward(lambda batch: next_token_loss_sum(model, batch)[0], [model], "perplexity")
    lengths = np.array([len(example.token_ids) for example in examples])
    alike = alike_lengths(np.arange(len(examples)), lengths, batch_size)
    rungs = [bucket(int(lengths.max()), max_length)]
    (batches,) = language_batches(examples, [alike], batch_size, rungs, model.config)()
    total, tokens = 0.0, 0
    for batch in batches:
        total += float(forward(model_inputs(batch)))
        tokens += count_target_tokens(batch)
    return math.exp(total / tokens)
