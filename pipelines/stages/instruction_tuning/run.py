"""Supervised tuning on prompts and responses (arXiv:2403.08295, section 4): the loss is on the responses only."""

import functools

from gemma_keras import GemmaCausalLM
from pipelines.data.contents import SeenPrompts, prompt_hashes
from pipelines.data.encoding import encode_instructions
from pipelines.stages.context import StageContext
from pipelines.stages.instruction_tuning.config import InstructionTuning
from pipelines.training.adapters import adapter_figures, attach, save_trained
from pipelines.training.language_model import train_language_model
from pipelines.training.mixture import Mixture, concatenated


def run(config: InstructionTuning, context: StageContext) -> dict:
    """Tune a model on instructions and save it.

    Args:
        config: the stage's options. context: its surroundings; the model goes into `context.output / "model"`, an
            adapter beside it.

    Returns:
        Figures of `Trainer.fit` and of `adapter_figures`, and `examples`, `heldout_examples`, `heldout_seen_before`
        (see `Split`), `dropped_rows`, `truncated_rows`.
    """
    rows, source_of = concatenated(context.examples_by_source(config.data, "instruction"))
    source = context.model_source(config.from_)
    context.doing("loading weights")
    model = GemmaCausalLM.from_preset(source, dtype=config.dtype)
    attach(model, config, context.seed)
    context.doing("tokenizing")
    encoded = encode_instructions(model.tokenizer, rows, config.max_length, config.overlong)
    prompts = [prompt_hashes(rows[i]) for i in encoded.rows]
    seen = context.seen_before(config)
    split = context.hold_out(prompts, config.heldout_fraction, seen)
    training = [encoded.examples[i] for i in split.training]
    heldout = [encoded.examples[i] for i in split.heldout]
    of_encoded = source_of[encoded.rows]
    mixture = Mixture.of(config, of_encoded[split.training], of_encoded[split.heldout])
    context.doing("compiling")
    learned_from = seen | SeenPrompts.of(prompts[i] for i in split.training)
    save = functools.partial(save_trained, model=model, source=source, seen=learned_from)
    figures = train_language_model(model, training, heldout, config, context, save, mixture)
    context.doing("saving the model")
    save(context.output)
    return {
        **figures,
        **adapter_figures(model),
        "examples": len(training),
        "heldout_examples": len(heldout),
        "heldout_seen_before": split.seen_before,
        "dropped_rows": encoded.dropped,
        "truncated_rows": encoded.truncated,
    }
