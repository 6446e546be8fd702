"""A Bradley-Terry reward model from preferences (arXiv:2403.08295, section 4; losses in `gemma_keras/losses.py`).

The model is the tuned one under a fresh head that reads the state at the last response token. Where the preferences
come from a stage it sees exactly the ids that were sampled. Its raw scores are stored as they are, with the mean and
standard deviation that normalise them on samples of the tuned model.

`batch_size` and `micro_batch_size` count pairs here.
"""

from pathlib import Path

from gemma_keras import GemmaCausalLM, GemmaRewardModel
from gemma_keras.random import generator
from pipelines.data.contents import SeenPrompts, prompt_hashes
from pipelines.data.encoding import encode_preferences
from pipelines.data.sources import PREFERENCES_FILE
from pipelines.host.errors import DataError
from pipelines.sampling.collected import read_responses
from pipelines.scoring.reward_models import SequenceScorer
from pipelines.stages.context import StageContext
from pipelines.stages.reward_modeling.config import RewardModeling
from pipelines.stages.reward_modeling.pair_training import (
    collected_samples,
    fresh_samples,
    measure_on_pairs,
    set_normalization,
    train_on_pairs,
)
from pipelines.stages.reward_modeling.token_agreement import token_agreement
from pipelines.training.adapters import adapter_figures, attach, save_trained


def run(config: RewardModeling, context: StageContext) -> dict:
    """Train a reward model and save it.

    Args:
        config: the stage's options. context: its surroundings; the model goes into `context.output / "model"`, an
            adapter beside it.

    Returns:
        Figures of `Trainer.fit`, `adapter_figures` and `measure_on_pairs` on the held-out pairs, `reward_mean`,
        `reward_std`, `normalized_on` ("collected_samples" of the stage, or "fresh_samples"), `normalization_samples`,
        `token_agreement` where it can differ, `training_pairs`, `heldout_seen_before` (see `Split`), `dropped_rows`,
        `truncated_rows`.
    """
    rows = context.examples(config.data, "preference")
    source = context.model_source(config.from_)
    context.doing("loading weights")
    tuned = GemmaCausalLM.from_preset(source, dtype=config.dtype)
    context.doing("tokenizing")
    encoded = encode_preferences(tuned.tokenizer, rows, config.max_length, config.overlong)
    prompts = [prompt_hashes(rows[i]) for i in encoded.rows]
    seen = context.seen_before(config)
    split = context.hold_out(prompts, config.heldout_fraction, seen)
    if not len(split.heldout):
        raise DataError(
            f"{rows[0].origin}: all pairs have one prompt, so none can be held out. Expected two prompts or more."
        )
    training = [encoded.examples[i] for i in split.training]
    heldout = [encoded.examples[i] for i in split.heldout]

    context.doing("sampling for the normalization")
    # Sampled before training, which changes the tuned model's weights in place.
    # Rows that a stage has only filtered say nothing of what the model says most.
    is_collected = isinstance(config.data, str) and (context.inputs[config.data] / PREFERENCES_FILE).is_file()
    if is_collected:
        collected = read_responses(context.inputs[str(config.data)])
        samples = collected_samples(collected, training, heldout, config.normalize_prompts, context.seed, context.name)
        agreement = None  # the ids are those that were sampled
    else:
        fresh = fresh_samples(
            tuned, encoded.examples, config.normalize_prompts, config.max_length, context.seed, context.name
        )
        samples = [sequence for one in fresh for sequence in one.sequences()]
        agreement = token_agreement(tuned.tokenizer, fresh)

    seed = first_weights_seed(context.seed, config.member)
    model = GemmaRewardModel(tuned.backbone, tuned.tokenizer, seed=seed)
    attach(model, config, seed)
    scorer = SequenceScorer(model)
    learned_from = seen | SeenPrompts.of(prompts[i] for i in split.training)

    def save(folder: Path) -> None:
        set_normalization(model, scorer, samples)
        save_trained(folder, model, source, learned_from)

    context.doing("compiling")
    figures = train_on_pairs(model, training, heldout, config, context, save)
    context.doing("saving the model")
    save(context.output)
    return {
        **figures,
        **adapter_figures(model),
        **measure_on_pairs(
            scorer,
            heldout,
            [prompts[i].group for i in split.heldout],
            generator(context.seed, context.name, "calibration"),
        ),
        "reward_mean": model.reward_mean,
        "reward_std": model.reward_std,
        "normalized_on": "collected_samples" if is_collected else "fresh_samples",
        "normalization_samples": len(samples),
        **({} if agreement is None else {"token_agreement": agreement}),
        "training_pairs": len(training),
        "heldout_seen_before": split.seen_before,
        "dropped_rows": encoded.dropped,
        "truncated_rows": encoded.truncated,
    }


def first_weights_seed(seed: int, member: int) -> int:
    """What keys the first weights of a head and an adapter.

    The order of the pairs is keyed by the stage's name already. A sum of both would give two seeds of a run heads in
    common.

    Args:
        seed: the workflow's. member: of an ensemble; 0 is the workflow's seed itself.
    """
    return int(generator(seed, "member", member).integers(2**62)) if member else seed
