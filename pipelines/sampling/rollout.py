"""Sampling responses, and reading the log-probabilities of exactly the ids that were sampled.

Shape letters: n responses, p prompt slots (padding on the left), r response slots (`max_new_tokens`); of a part of
them b rows, t positions, m targets.
"""

import dataclasses
import functools
import math
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from gemma_keras import backends
from gemma_keras.generation import generate_tokens
from gemma_keras.inputs.padding import padded
from gemma_keras.program_shapes import shapes_met
from gemma_keras.random import uniforms
from gemma_keras.sampling import Sampler
from pipelines.data.shapes import length_rungs, rung_for
from pipelines.host.parts import Keep, compute_now
from pipelines.host.progress import Progress
from pipelines.measures.model_flops import FORWARD, keys_of_answers, model_flops
from pipelines.measures.throughput import SAMPLING, Throughput
from pipelines.sampling.parts import Arrays, scoring_parts
from pipelines.sampling.prompts import Prompts


@dataclasses.dataclass(frozen=True)
class Rollout:
    """Responses sampled from a policy, prompt by prompt: row i * k + j is sample j of the i-th prompt asked for.

    Attributes:
        prompt_index: int (n,). Row of the data that the prompt came from.
        prompt_ids: int32 (n, p). prompt_is_token: bool (n, p), True for a real token.
        response_ids: int32 (n, r). response_mask: bool (n, r), True where the policy sampled the token, its stop token
            included.
        finished: bool (n,), True where a stop token ended the response.
        texts: the responses without control tokens.
        log_probs: float32 (n, r), of each sampled token as the sampler computed it, at its temperature; see
            `gemma_keras.generation.Generated`. 0 where nothing was sampled.
        entropy: float32 (n, r) in nats, of the distribution of each; None where it was not asked for.
        answers_per_prompt: k, as many rows in turn have one prompt, which is read once where they are scored; 1 has
            each row read alone.
    """

    prompt_index: np.ndarray
    prompt_ids: np.ndarray
    prompt_is_token: np.ndarray
    response_ids: np.ndarray
    response_mask: np.ndarray
    finished: np.ndarray
    texts: list[str]
    log_probs: np.ndarray
    entropy: np.ndarray | None = None
    answers_per_prompt: int = 1

    def __len__(self) -> int:
        return len(self.prompt_ids)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each response, its stop token included: int (n,)."""
        return self.response_mask.sum(axis=1)

    def prompt_list(self, row: int) -> list[int]:
        """The prompt's ids without padding."""
        return self.prompt_ids[row][self.prompt_is_token[row]].tolist()

    def response_list(self, row: int) -> list[int]:
        """The sampled ids of one response."""
        return self.response_ids[row][self.response_mask[row]].tolist()

    def model_inputs(
        self, rows: np.ndarray | None = None, length: int | None = None, targets: int | None = None
    ) -> Arrays:
        """Prompt and response as one row, as `model.score` takes them.

        Args:
            rows: int (b,), which responses; default all.
            length: t, default p + r. targets: m, default r. Nothing that is real may lie beyond them.

        Returns:
            token_ids int32 (b, t), padded on the right. padding_mask bool (b, t). target_ids int32 (b, m), the
            responses. target_positions int32 (b, m), the positions that predict them. response_mask bool (b, m).
        """
        rows = np.arange(len(self)) if rows is None else rows
        targets = targets or self.response_ids.shape[1]
        sequences = [self.prompt_list(row) + self.response_list(row) for row in rows.tolist()]
        slots = self.prompt_ids.shape[1] + self.response_ids.shape[1]
        token_ids, padding_mask = padded(sequences, 0, length or slots)
        before = self.prompt_is_token[rows].sum(axis=1, dtype=np.int32)[:, None] - 1
        return {
            "token_ids": token_ids,
            "padding_mask": padding_mask,
            "target_ids": self.response_ids[rows, :targets],
            # Those of padding may lie beyond the row.
            "target_positions": np.minimum(before + np.arange(targets, dtype=np.int32), token_ids.shape[1] - 1),
            "response_mask": self.response_mask[rows, :targets],
        }

    def sequences(self) -> list[list[int]]:
        """Prompt and response of each row as one list of ids, without padding: what a reward model scores."""
        return [self.prompt_list(row) + self.response_list(row) for row in range(len(self))]


class Sampling:
    """How responses are drawn: fixed for a stage, so that few shapes are compiled.

    Args:
        model: `GemmaCausalLM` with a tokenizer.
        max_new_tokens: int >= 1, r.
        temperature: float >= 0; 0 is greedy.
        batch_size: sequences sampled at once; fewer where whole prompts need it, whose samples share a prefill.
        seed, stage: draws are keyed by (seed, stage, step, prompt, sample).
        with_entropy: whether rollouts have an `entropy`.
        most_widths: how many widths prompts are padded to; fewer than three where other calls of the same stage take
            another number of samples a prompt, which are shapes of their own.
        throughput: adds up sampled tokens and the time they take; default one of its own.
    """

    def __init__(
        self, model: Any, max_new_tokens: int, temperature: float, batch_size: int, seed: int, stage: str,
        with_entropy: bool = False, most_widths: int = 3, throughput: Throughput | None = None,
    ) -> None:  # fmt: skip
        self.model = model
        self.max_new_tokens = max_new_tokens
        self.sampler = Sampler(temperature=temperature)
        self.batch_size = batch_size
        self.seed = seed
        self.stage = stage
        self.with_entropy = with_entropy
        self.most_widths = most_widths
        self.throughput = throughput or Throughput()

    def sample(
        self,
        prompts: Prompts,
        rows: Sequence[int] | np.ndarray,
        samples_per_prompt: int = 1,
        step: int | str = 0,
        progress: Progress | None = None,
        keep: Keep = compute_now,
    ) -> Rollout:
        """Draw `samples_per_prompt` responses to some prompts.

        Args:
            prompts: those of the stage. All are padded to `prompts.length`, long ones to a rung that they fit.
            rows: which of them; a row is the key of its draws, so that they do not depend on its neighbours.
            step: further key of the draws.
            progress: a `Progress` to advance by one a response, or None.
            keep: keeps the arrays of each part, for when this is interrupted.
        """
        k = samples_per_prompt
        index = np.repeat(np.asarray(rows, np.int64), k)
        draws = np.stack(
            [
                uniforms(self.seed, self.stage, step, i, j, shape=self.max_new_tokens)
                for i, j in zip(index.tolist(), _sample_numbers(index), strict=True)
            ]
        )
        asked = [prompts.token_ids[i] for i in index]
        ids, is_token = padded(asked, self.model.config.pad_token_id, prompts.length, side="left")
        rungs = length_rungs(prompts.length)[-self.most_widths :]
        order = np.argsort([rung_for(len(prompt), rungs) for prompt in asked], kind="stable")
        batch = self.batch_size - self.batch_size % k or self.batch_size  # whole prompts, where one fits
        parts = []
        for start in range(0, len(order), batch):
            part = order[start : start + batch]
            filled = np.concatenate([part, np.repeat(part[:1], batch - len(part))])
            width = rung_for(int(is_token[part].sum(axis=1).max()), rungs)
            inputs = ids[filled, -width:], is_token[filled, -width:], draws[filled]
            found = keep(
                str(start // batch),
                functools.partial(self._draw, *inputs, math.gcd(k, batch), len(part)),
                -(-len(order) // batch),
            )
            parts.append([found[name] for name in self._names])
            if progress is not None:
                progress.advance(len(part), work=int(parts[-1][1].sum()))
        back = np.argsort(order)
        response_ids, response_mask, *rest = (np.concatenate(values)[back] for values in zip(*parts, strict=True))
        texts = [
            self.model.tokenizer.decode(row[real].tolist())
            for row, real in zip(response_ids, response_mask, strict=True)
        ]
        finished, *measured = rest
        entropy = measured[1] if self.with_entropy else None
        return Rollout(
            index,
            ids,
            is_token,
            response_ids,
            response_mask,
            finished,
            texts,
            measured[0],
            entropy,
            answers_per_prompt=k,
        )

    @property
    def _names(self) -> tuple[str, ...]:
        """The arrays of `Generated` that a rollout is made of."""
        names = ("token_ids", "response_mask", "finished", "log_probs")
        return (*names, "entropy") if self.with_entropy else names

    def _draw(
        self, ids: np.ndarray, is_token: np.ndarray, draws: np.ndarray, shared: int, real: int
    ) -> dict[str, np.ndarray]:
        """`_names` of one part: of its rows the first `real`, of which each `shared` in turn have one prompt."""
        started, shapes_before = time.perf_counter(), shapes_met()
        stops = self.model.tokenizer.stop_token_ids
        prompts = ids[::shared], is_token[::shared]
        generated = generate_tokens(
            self.model, *prompts, self.max_new_tokens, draws, self.sampler, stops, with_entropy=self.with_entropy
        )
        found = {name: getattr(generated, name)[:real] for name in self._names}
        seconds, has_compiled = time.perf_counter() - started, shapes_met() > shapes_before
        lengths = is_token[:real:shared].sum(axis=1), found["response_mask"].sum(axis=1)
        self._count(*lengths, seconds, has_compiled)
        return found

    def _count(self, prompt_lengths: np.ndarray, lengths: np.ndarray, seconds: float, has_compiled: bool) -> None:
        keys = keys_of_answers(prompt_lengths, lengths)
        tokens = int(lengths.sum())
        flops = model_flops(self.model.config, keys, tokens, FORWARD)
        self.throughput.count(SAMPLING, tokens, seconds, flops, self.model.compute_dtype, has_compiled)


class ResponseScorer:
    """Log-probabilities of sampled responses under a model, at the sampling temperature, without gradients.

    Args:
        model: `GemmaCausalLM`.
        temperature: float > 0.
        micro_batch_size: sequences a forward pass; always filled up to it, so that few shapes are compiled.
    """

    def __init__(self, model: Any, temperature: float, micro_batch_size: int) -> None:
        self._micro_batch_size = micro_batch_size
        self._run = backends.compile_forward(
            lambda inputs: model.score(inputs, temperature, with_entropy=True), [model], "log_probs"
        )

    def __call__(self, rollout: Rollout) -> tuple[np.ndarray, np.ndarray]:
        """Args: a rollout of n responses. Returns: log_probs float32 (n, r) and entropy float32 (n, r), 0 where nothing
        was sampled."""
        found = np.zeros((2, *rollout.response_mask.shape), np.float32)
        for inputs, rows in scoring_parts(rollout, self._micro_batch_size):
            for values, part in zip(found, self._run(inputs), strict=True):
                values[rows, : part.shape[1]] = backends.to_host(part)[: len(rows)]
        log_probs, entropy = np.where(rollout.response_mask, found, 0)
        return log_probs, entropy


def _sample_numbers(index: np.ndarray) -> list[int]:
    """Which sample of its prompt each row is; a prompt that is met twice in one step must not draw the same numbers
    again."""
    seen: Counter[int] = Counter()
    numbers = []
    for i in index.tolist():
        numbers.append(seen[i])
        seen[i] += 1
    return numbers
