"""One update: gradients, moments, activations, head, at the moment at which most of them stand.

Two moments may decide. At the start of the backward pass all activations are there; at its end all gradients. JAX and
TensorFlow reserve the gradients as the outputs of their program before it starts, so that there the first moment has
both; PyTorch makes each when it is known, unless micro-batches add to sums that are there already.

The embedding is used twice, at the input and in the head. Its gradient from the head is computed in the forward pass
and waits through the whole backward pass for the one from the input, then both are added: two more copies of (v, d)
beside the sums that they go into, one where they are themselves the gradient.
"""

import dataclasses

from gemma_keras.config import GemmaConfig
from gemma_keras.lora_options import LoraOptions
from pipelines.memory.activations import compiler, kept_bytes, working_bytes
from pipelines.memory.head import head_bytes
from pipelines.memory.usage import Usage, largest
from pipelines.memory.weights import FLOAT, embedding_count, trained_count, weight_bytes

MOMENTS = 2


@dataclasses.dataclass(frozen=True)
class Learning:
    """What is trained, and on how much at once.

    Args:
        config: of the model. backend, dtype: of the stage.
        lora: the adapter, or None where all weights are trained. quantize: of the frozen kernels under it.
        remat: "none" or "block".
        rows: sequences of a micro-batch, each of `width` positions.
        targets: log-probabilities a row that the head computes; 0 for a reward model, which has none.
        sums_up: whether an update has several micro-batches.
        doing: what to call it.
    """

    config: GemmaConfig
    backend: str
    dtype: str
    lora: LoraOptions | None
    quantize: str | None
    remat: str
    rows: int
    width: int
    targets: int
    sums_up: bool
    doing: str = "updating"

    def standing(self, doing: str, frozen: float = 0.0) -> Usage:
        """Weights and moments, which stand all the time."""
        trained = FLOAT * trained_count(self.config, self.lora)
        adapter = 0.0 if self.lora is None else trained
        weights = weight_bytes(self.config, self.dtype, self.quantize) + adapter
        return Usage(doing, weights=weights, moments=MOMENTS * trained, frozen=frozen)

    def update(self, frozen: float = 0.0) -> Usage:
        """The moment of an update that takes most."""
        config, tokens = self.config, self.rows * self.width
        standing = self.standing(self.doing, frozen)
        gradients = standing.moments / MOMENTS
        is_xla = compiler(self.backend) == "xla"
        tied = FLOAT * embedding_count(config) if self.lora is None else 0.0
        from_head = tied if self.targets else 0.0
        head = 0.0
        if self.targets:
            head = head_bytes(config, self.backend, self.dtype, self.rows, self.targets, bool(from_head))
        working = working_bytes(config, self.backend, self.dtype, tokens)
        drops = self.lora is not None and self.lora.dropout > 0
        kept = kept_bytes(config, self.backend, self.dtype, tokens, self.width, self.remat, drops)
        reserved = gradients if is_xla or self.sums_up else 0.0
        start = dataclasses.replace(standing, gradients=reserved + from_head, activations=kept + working, logits=head)
        both = tied + (from_head if self.sums_up else 0.0)
        end = dataclasses.replace(standing, gradients=gradients + both, activations=working)
        return largest([start, end])
