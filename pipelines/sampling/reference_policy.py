"""What a policy's KL is measured to."""

import contextlib
import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class ReferencePolicy:
    """What a policy's KL is measured to: a model of its own, or the policy without its adapter, which takes no memory.

    Attributes:
        model: GemmaCausalLM. is_adapter_off: True where `model` is the policy itself.
    """

    model: Any
    is_adapter_off: bool = False

    def computing(self) -> contextlib.AbstractContextManager:
        """Inside it `model` computes as the reference."""
        return self.model.adapters_off() if self.is_adapter_off else contextlib.nullcontext()
