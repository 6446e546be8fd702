"""Low-rank adapters in a stage: the key `lora:` of a workflow.

The base model stays as it was loaded; what is trained is the adapter, and a reward model's head. A stage writes the sum
of both as its `model/`, which the next stage reads like any other, and the adapter alone as `adapter/` in PEFT's
format.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.schema.base import OptimizerOptions
from pipelines.training.model_folder import save_model, write_folder


def attach(model: Any, config: OptimizerOptions, seed: int) -> None:
    """Make a model ready for a stage's training: its blocks recomputed where `remat` asks for it, and with `lora`
    frozen under an adapter.

    Args:
        model: GemmaCausalLM or GemmaRewardModel.
        config: the stage's options.
        seed: keys the adapter's initial weights.
    """
    model.backbone.remat = config.remat
    lora = config.lora
    if lora is None:
        return
    if lora.quantize is not None:
        model.quantize(lora.quantize)
    model.add_adapter("default", lora.options(), seed)


def adapter_figures(model: Any) -> dict[str, int]:
    """`trainable_parameters` of a model with an adapter, else nothing."""
    if model.active_adapter is None:
        return {}
    return {"trainable_parameters": sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)}


def save_trained(model: Any, output: Path, source: str | Path | None) -> None:
    """Write `model/` into a stage's folder, and where an adapter was trained also `adapter/`.

    Args:
        model: GemmaCausalLM or GemmaRewardModel.
        output: the stage's folder.
        source: folder, file or hub id that the model was loaded from, which an adapter names as its base: a path by its
            way from `adapter/`. None for a model from scratch, which takes no adapter.
    """
    save_model(model, output / "model")
    if model.active_adapter is None:
        return
    folder = output / "adapter"
    base = os.path.relpath(source, folder) if isinstance(source, Path) else source
    write_folder(folder, lambda temporary: model.save_adapter(temporary, base=base))
