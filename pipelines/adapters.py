"""Low-rank adapters in a stage: the key `lora:` of a workflow.

The base model stays as it was loaded; what is trained is the adapter, and a reward model's head. A stage writes the sum of both as its
`model/`, which the next stage reads like any other, and the adapter alone as `adapter/` in PEFT's format.
"""

import contextlib
import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np

from gemma_keras.random import generator
from pipelines.checkpoint import save_model, write_folder
from pipelines.configs import Lora
from pipelines.stage_context import StageContext

DROPOUT_KEYS = "dropout_keys"


def attach(model, lora: Lora | None, seed: int) -> None:
    """Freeze a model and give it the adapter that a stage's `lora` asks for; nothing without it.

    Args:
        model: GemmaCausalLM or GemmaRewardModel.
        seed: keys the adapter's initial weights.
    """
    if lora is None:
        return
    if lora.quantize is not None:
        model.quantize(lora.quantize)
    model.add_adapter("default", lora.options(), seed)


def adapter_figures(model) -> dict[str, int]:
    """`trainable_parameters` of a model with an adapter, else nothing."""
    if model.active_adapter is None:
        return {}
    return {"trainable_parameters": sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)}


def save_trained(model, context: StageContext, from_: str | None) -> None:
    """Write a stage's `model/`, and where an adapter was trained also `adapter/`.

    Args:
        from_: the stage's `from`. The adapter names what it means as its base, a folder by its path from `adapter/`.
    """
    save_model(model, context.output / "model")
    if model.active_adapter is None:
        return
    folder, source = context.output / "adapter", context.model_source(from_)
    base = os.path.relpath(source, folder) if isinstance(source, Path) else source
    write_folder(folder, lambda temporary: model.save_adapter(temporary, base=base))


def dropout_keys(seed: int, stage: str, step: int, row_index: np.ndarray, rows: int) -> np.ndarray:
    """What each row of a batch drops its adapter's inputs by: int32 (rows,).

    Args:
        seed, stage, step: of the update.
        row_index: int (b,), the rows of the data, -1 for filling: a row's key does not depend on the batch around it.
        rows: a multiple of b. A batch of pairs has two sequences a row, first all chosen, then all rejected ones.
    """
    sides = range(rows // len(row_index))
    keys = [generator(seed, stage, "dropout", step, row, side).integers(2**31) for side in sides for row in row_index.tolist()]
    return np.array(keys, np.int32)


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
