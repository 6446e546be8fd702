"""How a policy in training does on fixed prompts: its reward, the gold reward as a monitor, and its exact KL."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np

from pipelines.measures.intervals import Bounds, mean_interval
from pipelines.measures.statistics import spearman
from pipelines.sampling.exact_kl import ExactKL
from pipelines.sampling.prompts import Prompts, prompt_text
from pipelines.sampling.rollout import Rollout, Sampling
from pipelines.scoring.base import Rater, part_means
from pipelines.stages.policy_optimization.updates import completion_figures

SAMPLES_KEPT = 8


@dataclasses.dataclass
class PolicyEvaluation:
    """One response to each of some prompts, with the same draws at every evaluation, so that changes come from the
    policy.

    Args:
        sampling: of the policy. prompts: of the stage. rows: the fixed prompts, never trained on.
        rater: the training reward. gold: the task's gold reward, or None; it is logged and trains nothing.
        exact_kl: of policy and reference.
        samples_file: JSON lines, to which a few samples are added at each evaluation.
    """

    sampling: Sampling
    prompts: Prompts
    rows: np.ndarray
    rater: Rater
    gold: Rater | None
    exact_kl: ExactKL
    samples_file: Path

    def measure(self, step: int) -> dict[str, float]:
        """Figures with the prefix `eval_`, intervals at 95 % over prompts; a single prompt has one only of a bounded
        reward."""
        rollout = self.sampling.sample(self.prompts, self.rows, step="evaluation")
        examples = [self.prompts.examples[i] for i in rollout.prompt_index]
        scores = self.rater.score(examples, rollout)
        token_kl = self.exact_kl(rollout)
        figures = {
            **_with_interval("reward", scores.total, self.rater.bounds),
            **part_means(scores.parts),
            "kl": float(token_kl.sum() / rollout.lengths.sum()),
            "kl_sequence": float(token_kl.sum(axis=1).mean()),
            **completion_figures(rollout),
        }
        columns = {"reward": scores.total}
        if self.gold is not None:
            gold = self.gold.score(examples, rollout)
            columns["gold"] = gold.total
            figures |= _with_interval("gold", gold.total, self.gold.bounds)
            figures |= {f"gold/{name}": float(values.mean()) for name, values in gold.parts.items()}
            agreement = spearman(scores.total, gold.total)
            if math.isfinite(agreement):
                figures["reward_gold_correlation"] = agreement
        self._keep_samples(step, rollout, columns)
        return {f"eval_{name}": value for name, value in figures.items()}

    def _keep_samples(self, step: int, rollout: Rollout, columns: dict[str, np.ndarray]) -> None:
        with self.samples_file.open("a", encoding="utf-8") as file:
            for row in range(min(SAMPLES_KEPT, len(rollout))):
                prompt = prompt_text(self.prompts.examples[rollout.prompt_index[row]])
                kept = {name: float(values[row]) for name, values in columns.items()}
                file.write(
                    json.dumps(
                        {"step": step, "prompt": prompt, "completion": rollout.texts[row], **kept}, ensure_ascii=False
                    )
                    + "\n"
                )


def _with_interval(name: str, values: np.ndarray, bounds: Bounds | None) -> dict[str, float]:
    interval = mean_interval(values, bounds=bounds)
    ends = {} if interval is None else {f"{name}_ci95_low": interval[0], f"{name}_ci95_high": interval[1]}
    return {name: float(values.mean()), **ends}
