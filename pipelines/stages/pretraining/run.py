"""Next-token training on plain text, from random weights or from a model: the quickstart's first stage.

The texts are packed side by side into rows of `max_length` tokens; segment ids and positions that restart keep them
apart. Without a model to start from, `workflow.model.config` gives the sizes and the tokenizer is trained on the texts
of this stage.
"""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gemma_keras import GemmaBackbone, GemmaCausalLM, GemmaTokenizer
from pipelines.data.contents import SeenPrompts, prompt_hashes
from pipelines.data.encoding import encode_texts
from pipelines.data.packing import Encoded, PackedRow, pack, packing_efficiency
from pipelines.schema.model import ScratchModel
from pipelines.stages.context import StageContext
from pipelines.stages.pretraining.config import Pretraining
from pipelines.training.adapters import adapter_figures, attach, save_trained
from pipelines.training.language_model import train_language_model
from pipelines.training.mixture import Mixture, concatenated


def run(config: Pretraining, context: StageContext) -> dict:
    """Train on text and save the model.

    Args:
        config: the stage's options. context: its surroundings; the model goes into `context.output / "model"`, an
            adapter beside it.

    Returns:
        Figures of `Trainer.fit` and of `adapter_figures`, and `parameters`, `vocabulary_size`, `documents`,
        `heldout_seen_before` (see `Split`), `dropped_rows`, `truncated_rows`, `packing_efficiency` (share of positions
        that hold a token).
    """
    texts, source_of = concatenated(context.examples_by_source(config.data, "text"))
    hashes = [prompt_hashes(text) for text in texts]
    seen = context.seen_before(config)
    split = context.hold_out(hashes, config.heldout_fraction, seen)
    context.doing("loading weights" if config.from_ or isinstance(context.model, str) else "training a tokenizer")
    model, source = starting_model(config, context, [texts[i].text for i in split.training])
    attach(model, config, context.seed)
    context.doing("tokenizing")
    encoded = encode_texts(model.tokenizer, texts, config.max_length, config.overlong)
    is_heldout = np.isin(encoded.rows, split.heldout)
    of_encoded = source_of[encoded.rows]
    training, packed_of = _packed(encoded.examples, ~is_heldout, of_encoded, config.max_length)
    heldout, heldout_of = _packed(encoded.examples, is_heldout, of_encoded, config.max_length)
    mixture = Mixture.of(config, packed_of, heldout_of)
    context.doing("compiling")
    learned_from = seen | SeenPrompts.of(hashes[i] for i in split.training)
    save = functools.partial(save_trained, model=model, source=source, seen=learned_from)
    figures = train_language_model(model, training, heldout, config, context, save, mixture)
    context.doing("saving the model")
    save(context.output)
    return {
        **figures,
        **adapter_figures(model),
        "parameters": model.config.parameter_count,
        "vocabulary_size": model.config.vocabulary_size,
        "documents": len(encoded.examples),
        "heldout_seen_before": split.seen_before,
        "dropped_rows": encoded.dropped,
        "truncated_rows": encoded.truncated,
        "packing_efficiency": packing_efficiency(training, config.max_length),
    }


def _packed(
    examples: Sequence[Encoded], is_chosen: np.ndarray, source_of: np.ndarray, max_length: int
) -> tuple[list[PackedRow], np.ndarray]:
    """Rows of those that are chosen, each of documents of one source; and the source of each row: int (n,)."""
    sources = np.unique(source_of)
    parts = {
        source: pack([examples[i] for i in np.flatnonzero(is_chosen & (source_of == source)).tolist()], max_length)
        for source in sources.tolist()
    }
    rows, place_of = concatenated(parts)
    return rows, sources[place_of]


def starting_model(
    config: Pretraining, context: StageContext, texts: list[str]
) -> tuple[GemmaCausalLM, str | Path | None]:
    """The model of `from`, or of the workflow, and where it came from.

    From scratch it has random weights keyed by the seed, a tokenizer trained on `texts`, and comes from nowhere.
    """
    scratch = context.model
    if config.from_ is not None or not isinstance(scratch, ScratchModel):
        source = context.model_source(config.from_)
        return GemmaCausalLM.from_preset(source, dtype=config.dtype), source
    family = scratch.gemma_config().family
    tokenizer = GemmaTokenizer.train(texts, scratch.tokenizer.vocabulary_size, family)
    gemma_config = scratch.gemma_config(scratch.config.vocabulary_size or tokenizer.vocabulary_size())
    return GemmaCausalLM(GemmaBackbone(gemma_config, dtype=config.dtype, seed=context.seed), tokenizer), None
