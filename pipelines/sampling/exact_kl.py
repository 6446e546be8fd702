"""KL of a policy to its reference at each sampled prefix, as the full sum over the vocabulary.

Against the usual estimate from the sampled tokens it has far less variance and is never negative.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from keras import ops

from gemma_keras import backends
from gemma_keras.head import DENSE_LOGITS, full_logits
from pipelines.algorithms.kl import exact_token_kl
from pipelines.sampling.reference_policy import ReferencePolicy
from pipelines.sampling.rollout import Rollout, full_parts


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
                positions = ops.cast(inputs["target_positions"], "int32")[:, :, None]
                # float32, because bfloat16 has no numpy type; the values are exact.
                return ops.cast(ops.take_along_axis(model.backbone(inputs), positions, axis=1), "float32")

            return backends.compile_forward(run, [model])

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
        self._kl = backends.compile_forward(lambda inputs: kl_of([inputs["policy"], inputs["reference"]]), models)
        self._micro_batch_size = micro_batch_size
        self._most_positions = max(1, DENSE_LOGITS // (2 * policy.config.vocabulary_size))

    def __call__(self, rollout: Rollout) -> np.ndarray:
        """KL before each sampled token.

        Args:
            rollout: n responses.

        Returns:
            float64 (n, r) in nats, 0 where nothing was sampled. The sum of a row estimates the KL of whole responses.
        """
        hidden, places = [], []
        for rows, inputs in rollout.parts(self._micro_batch_size):
            mask = inputs.pop("response_mask")[: len(rows)]
            states = self._policy_hidden(inputs)
            with self._reference.computing():
                reference_states = self._reference_hidden(inputs)
            hidden.append([backends.to_host(found)[: len(rows)][mask] for found in (states, reference_states)])
            row, column = np.nonzero(mask)
            places.append((rows[row], column))
        policy, reference = (np.concatenate(states) for states in zip(*hidden, strict=True))
        # A chunk of positions at a time: the logits of two models over a large vocabulary never stand side by side in
        # full.
        size = min(self._most_positions, self._micro_batch_size * rollout.response_mask.shape[1])
        parts = full_parts({"policy": policy, "reference": reference}, size)
        result = np.zeros(rollout.response_mask.shape, np.float64)
        rows, columns = (np.concatenate(indices) for indices in zip(*places, strict=True))
        result[rows, columns] = np.concatenate([backends.to_host(self._kl(part))[:real] for part, real in parts])
        return result
