"""Low-rank adapters in a stage: the key `lora:` of a workflow.

The base model stays as it was loaded; what is trained is the adapter, and a reward model's head. A stage writes the sum
of both as its `model/`, which the next stage reads like any other, and the adapter alone as `adapter/` in PEFT's
format.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.data.contents import SeenPrompts
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


def save_trained(output: Path, model: Any, source: str | Path | None, seen: SeenPrompts) -> None:
    """Write `model/` into a stage's folder, and where an adapter was trained also `adapter/`.

    Args:
        output: the stage's folder, or one of its snapshots.
        model: GemmaCausalLM or GemmaRewardModel.
        source: folder, file or hub id that the model was loaded from, which an adapter names as its base: a path by its
            way from `adapter/`. None for a model from scratch, which takes no adapter.
        seen: the prompts that it and those before it learned from, for later stages.
    """
    save_model(model, output / "model")
    seen.write(output / "model")
    if model.active_adapter is None:
        return
    folder = output / "adapter"
    base = os.path.relpath(source, folder) if isinstance(source, Path) else source
    write_folder(folder, lambda temporary: model.save_adapter(temporary, base=base))
