"""KL of a policy to its reference at each sampled prefix, as the full sum over the vocabulary.

Against the usual estimate from the sampled tokens it has far less variance and is never negative.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from keras import ops

from gemma_keras import backends
from gemma_keras.head import DENSE_LOGITS, full_logits
from gemma_keras.layers.chosen_states import chosen_states
from pipelines.algorithms.kl import exact_token_kl
from pipelines.sampling.parts import full_parts, scoring_parts
from pipelines.sampling.reference_policy import ReferencePolicy
from pipelines.sampling.rollout import Rollout


class ExactKL:
    """Measures a policy against a reference.

    Args:
        policy: `GemmaCausalLM`. reference: of the same vocabulary.
        temperature: float > 0. Of both distributions.
        micro_batch_size: sequences a forward pass.
    """

    def __init__(self, policy: Any, reference: ReferencePolicy, temperature: float, micro_batch_size: int) -> None:
        models = [policy, reference.model]

        def hidden_of(model: Any) -> Callable[[Mapping[str, Any]], Any]:
            def run(inputs: Mapping[str, Any]) -> Any:
                states = chosen_states(model.backbone(inputs), inputs["target_positions"], inputs.get("target_rows"))
                return ops.cast(states, "float32")  # as bfloat16 has no numpy type; the values are exact

            return backends.compile_forward(run, [model], "hidden_states")

        def kl_of(hidden: list[Any]) -> Any:
            log_probs = []
            for model, states in zip(models, hidden, strict=True):
                states = ops.cast(states, model.backbone.compute_dtype)[None]
                logits = full_logits(
                    states, model.backbone.token_embedding.as_output_matrix(), model.config.final_logit_soft_cap
                )
                log_probs.append(ops.log_softmax(logits / temperature, axis=-1)[0])
            return exact_token_kl(*log_probs)

        self._reference = reference
        self._policy_hidden, self._reference_hidden = (hidden_of(model) for model in models)
        self._kl = backends.compile_forward(
            lambda inputs: kl_of([inputs["policy"], inputs["reference"]]), models, "exact_kl"
        )
        self._micro_batch_size = micro_batch_size
        self._most_positions = max(1, DENSE_LOGITS // (2 * policy.config.vocabulary_size))

    def __call__(self, rollout: Rollout) -> np.ndarray:
        """KL before each sampled token.

        Args:
            rollout: n responses.

        Returns:
            float64 (n, r) in nats, 0 where nothing was sampled. The sum of a row estimates the KL of whole responses.
        """
        mask = rollout.response_mask
        shape = (2, *mask.shape, self._reference.model.config.hidden_dim)
        hidden = np.zeros(shape, np.float32)
        for inputs, rows in scoring_parts(rollout, self._micro_batch_size):
            states = self._policy_hidden(inputs)
            with self._reference.computing():
                reference_states = self._reference_hidden(inputs)
            for values, part in zip(hidden, (states, reference_states), strict=True):
                values[rows, : part.shape[1]] = backends.to_host(part)[: len(rows)]
        policy, reference = (values[mask] for values in hidden)
        # A chunk of positions at a time: the logits of two models over a large vocabulary never stand side by side in
        # full.
        most = min(self._most_positions, self._micro_batch_size * mask.shape[1])
        parts = full_parts({"policy": policy, "reference": reference}, most)
        result = np.zeros(mask.shape, np.float64)
        result[mask] = np.concatenate([backends.to_host(self._kl(part))[:size] for part, size in parts])
        return result
