"""What scores responses: the built-in task's gold reward, named functions, a user's own, reward models, and sums and
ensembles of these.

The same objects are the raters of preference collection, the rewards of policy optimization and the judges of
evaluation.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np

from gemma_keras import GemmaRewardModel
from gemma_keras.checkpoints.hugging_face_reader import read_reward
from pipelines.algorithms.reward_ensembles import combined, disagreement
from pipelines.data.columns import Prompt
from pipelines.graders.answers import REWARD_FUNCTIONS, reward_function
from pipelines.host.errors import ConfigError, DataError
from pipelines.host.time_limit import TimeIsUp, time_limit
from pipelines.plugins.loading import load
from pipelines.plugins.sources import UserFunction
from pipelines.sampling.frozen import frozen_dtype
from pipelines.sampling.prompts import prompt_text
from pipelines.sampling.rollout import Rollout
from pipelines.schema.base import Bits
from pipelines.schema.data import FileData, TaskData
from pipelines.schema.ensembles import ENSEMBLE_STD, Ensemble, as_said
from pipelines.schema.functions import CodeTests, ScoringFunction, TextFunction
from pipelines.schema.roles import FUNCTION_PREFIX, GOLD, REWARD_MODEL_PREFIX
from pipelines.schema.scoring import ToxicityModel
from pipelines.scoring import toxicity
from pipelines.scoring.base import Rater, Scores, checked
from pipelines.scoring.code_tests import CodeRater
from pipelines.scoring.reward_models import SequenceScorer
from pipelines.scoring.user_rewards import Samples, UserReward
from pipelines.tasks import Task, task

TEXT_SECONDS = 10.0
"""What a shipped function may take for one response."""


class Models(Protocol):
    """Where reward models and a user's own functions are found; a stage's context is one."""

    inputs: dict[str, Path]
    user_functions: Mapping[str, UserFunction]

    def model_source(self, from_: str | None) -> str | Path:
        """A folder or file for a stage's name or a path."""


class Part(Protocol):
    """One part of a summed reward, as a workflow says it."""

    @property
    def reward(self) -> str | ScoringFunction | Ensemble:
        """What `make_rater` takes."""

    @property
    def weight(self) -> float:
        """Its factor."""


class GoldRater(Rater):
    """The gold reward of the built-in task; its parts are the gold parts, each between its bounds as well."""

    bounds = (0.0, 1.0)

    def __init__(self, built_in: Task) -> None:
        self.name = self.source = "gold"
        self.task = built_in

    def score(self, prompts: Sequence[Prompt], rollout: Rollout) -> Scores:
        found = []
        for prompt, text, finished in zip(prompts, rollout.texts, rollout.finished, strict=True):
            if prompt.item is None:
                raise DataError(
                    f"{prompt.origin}: the gold reward needs prompts of the built-in task {self.task.name!r}."
                )
            found.append(self.task.gold_reward(prompt.item, text, bool(finished)))
        parts = {name: np.array([gold.parts[name] for gold in found], np.float64) for name in self.task.gold_parts}
        return Scores(np.array([gold.total for gold in found], np.float64), parts)


class FunctionRater(Rater):
    """A function of the closed registry, on text and known answer; all of them give between 0 and 1."""

    bounds = (0.0, 1.0)

    def __init__(self, name: str) -> None:
        try:
            self._function = reward_function(name)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        self.name, self.source = name, FUNCTION_PREFIX + name

    def score(self, prompts: Sequence[Prompt], rollout: Rollout) -> Scores:
        total = []
        for prompt, text in zip(prompts, rollout.texts, strict=True):
            try:
                total.append(self._function(text, prompt.answer))
            except ValueError as error:
                raise DataError(f"{prompt.origin}: {error}") from error
        return checked(self.name, np.array(total, np.float64), prompts)


class SettingsRater(Rater):
    """A shipped function of a response, with settings."""

    bounds = (0.0, 1.0)

    def __init__(self, settings: TextFunction) -> None:
        self.name, self.source = settings.label, as_said(settings)
        self._scorer = settings.scorer()

    def score(self, prompts: Sequence[Prompt], rollout: Rollout) -> Scores:
        total = []
        for row, (prompt, text) in enumerate(zip(prompts, rollout.texts, strict=True)):
            tokens = rollout.response_list(row)
            try:
                with time_limit(TEXT_SECONDS):
                    total.append(self._scorer(text, tokens[:-1] if rollout.finished[row] else tokens))
            except TimeIsUp as error:
                raise DataError(
                    f"{prompt.origin}: the reward {self.name!r} took over {TEXT_SECONDS:g} s for the response "
                    f"{text[:200]!r}. A pattern that repeats what repeats, such as (a+)+, can take years; write it "
                    "without."
                ) from error
        return Scores(np.array(total, np.float64), {})


class UserRater(Rater):
    """A function of a user's own."""

    def __init__(self, about: UserFunction) -> None:
        self.name, self.source = about.name, FUNCTION_PREFIX + about.name
        self._reward = UserReward(about, load(about))

    def score(self, prompts: Sequence[Prompt], rollout: Rollout) -> Scores:
        total = self.score_part(prompts, rollout)
        _need_one(f"{self.name!r} ({self._reward.about.origin})", {self.name: total}, prompts)
        return Scores(total, {})

    def score_part(self, prompts: Sequence[Prompt], rollout: Rollout) -> np.ndarray:
        ids = [rollout.response_list(row) for row in range(len(rollout))]
        return self._reward(Samples(prompts, rollout.texts, ids))


class RewardModelRater(Rater):
    """A reward model on exactly the sampled ids, normalised to mean 0 and std 1 on samples of the tuned model."""

    def __init__(self, name: str, model: Any, micro_batch_size: int) -> None:
        self.name, self.source = name, REWARD_MODEL_PREFIX + name
        self._model = model
        self._scorer = SequenceScorer(model, micro_batch_size)

    def score(self, prompts: Sequence[Prompt], rollout: Rollout) -> Scores:
        length = rollout.prompt_ids.shape[1] + rollout.response_ids.shape[1]
        raw = self._scorer.raw_scores(rollout.sequences(), length).astype(np.float64)
        return checked(self.name, self._model.normalized(raw), prompts)


class WeightedRater(Rater):
    """A weighted sum of raters; its parts are theirs, unweighted. One that does not apply to a response counts 0 for
    it."""

    def __init__(self, raters: Sequence[Rater], weights: Sequence[float]) -> None:
        names = [rater.name for rater in raters]
        if len(set(names)) != len(names):
            raise ConfigError(
                f"The rewards of a sum must differ. Received: {', '.join(names)}. Add their weights up instead."
            )
        self.name = "sum"
        self.source = " + ".join(f"{weight:g} {rater.source}" for rater, weight in zip(raters, weights, strict=True))
        self.bounds = _bounds_of_sum([rater.bounds for rater in raters], weights)
        self._raters = list(raters)
        self._weights = list(weights)

    def score(self, prompts: Sequence[Prompt], rollout: Rollout) -> Scores:
        parts = {rater.name: rater.score_part(prompts, rollout) for rater in self._raters}
        _need_one(repr(self.source), parts, prompts)
        total = sum(weight * np.nan_to_num(part) for weight, part in zip(self._weights, parts.values(), strict=True))
        return Scores(np.asarray(total), parts)


class EnsembleRater(Rater):
    """Several reward models as one; its parts are theirs, and `ensemble_std`, how far they lie apart on a response."""

    name = "ensemble"

    def __init__(self, members: Sequence[Rater], settings: Ensemble) -> None:
        names = [member.name for member in members]
        if len({*names, ENSEMBLE_STD}) <= len(names):
            raise ConfigError(
                f"The members of an ensemble need names that differ, and none may be {ENSEMBLE_STD!r}. Received: "
                f"{', '.join(names)}. A folder is called by its last part: rename it."
            )
        self.source = as_said(settings)
        self._members, self._settings = list(members), settings

    def score(self, prompts: Sequence[Prompt], rollout: Rollout) -> Scores:
        parts = {member.name: member.score(prompts, rollout).total for member in self._members}
        scores = np.stack(list(parts.values()))
        total = combined(scores, self._settings.combine, self._settings.weight)
        return Scores(total, {**parts, ENSEMBLE_STD: disagreement(scores)})


@dataclasses.dataclass(frozen=True)
class RaterSettings:
    """How raters are held, and what they rate.

    Args:
        dtype: Keras dtype policy of a reward model. quantize: "int8" or "int4" of its kernels, or None.
        task: the built-in task whose gold reward is meant, or None.
        micro_batch_size: sequences a forward pass of a reward model.
        vocabulary_size: of the policy, whose ids a reward model must understand.
    """

    dtype: str
    quantize: Bits | None
    task: Task | None
    micro_batch_size: int
    vocabulary_size: int


def make_rater(
    name: str | ScoringFunction | Ensemble | Sequence[Part], models: Models, settings: RaterSettings
) -> Rater:
    """The rater that a workflow names.

    Args:
        name: `gold`, a function (bare or behind `function:`), a stage or model folder (bare or behind `reward_model:`),
            a function with its settings, a list of weighted ones, or an ensemble of reward models.

    Raises:
        ConfigError: an unknown name, gold without the built-in task, or a model that is no reward model of this
            vocabulary.
    """
    if isinstance(name, ScoringFunction):
        return CodeRater(name) if isinstance(name, CodeTests) else SettingsRater(cast(TextFunction, name))
    if isinstance(name, Ensemble):
        members = [
            _reward_model_rater(one.removeprefix(REWARD_MODEL_PREFIX), models, settings) for one in name.ensemble
        ]
        return EnsembleRater(members, name)
    if not isinstance(name, str):
        return WeightedRater(
            [make_rater(part.reward, models, settings) for part in name], [part.weight for part in name]
        )
    if name == GOLD:
        return gold_rater(settings.task)
    if name.startswith(FUNCTION_PREFIX) or name in REWARD_FUNCTIONS:
        function = name.removeprefix(FUNCTION_PREFIX)
        own = models.user_functions.get(function)
        return FunctionRater(function) if own is None else UserRater(own)
    return _reward_model_rater(name.removeprefix(REWARD_MODEL_PREFIX), models, settings)


def open_reward_model(name: str, models: Models, dtype: str, quantize: Bits | None) -> Any:
    """The GemmaRewardModel of a stage or folder, to score with.

    Args:
        name: of a stage or folder. dtype, quantize: as of `RaterSettings`.

    Raises:
        ConfigError: it is no reward model.
    """
    folder = Path(models.model_source(name))
    # A language model's folder would load too, under a random head.
    if not folder.is_dir() or read_reward(folder) is None:
        raise ConfigError(f"{name!r} holds no reward model ({folder}). Name a stage that trained one, or its folder.")
    # Kernels are quantized from all their digits.
    model = GemmaRewardModel.from_preset(folder, dtype=frozen_dtype(dtype) if quantize is None else dtype)
    if quantize is not None:
        model.quantize(quantize)
    return model


def open_scorer(wanted: ToxicityModel | None, models: Models, dtype: str) -> tuple[str, toxicity.Scorer]:
    """What scores toxicity, by the name that stands in its figures.

    Args:
        wanted: a classifier or a name on the hub; None, or neither, is the list of swear words. dtype: of a classifier.

    Raises:
        ConfigError: it is not installed, or cannot be had.
    """
    if wanted is None or not wanted.has_model:
        return toxicity.LEXICON, toxicity.lexicon()
    if wanted.classifier is not None:
        model = open_reward_model(wanted.classifier, models, dtype, None)
        return f"classifier:{wanted.classifier}", toxicity.classifier(model)
    return f"hub:{wanted.hub}", toxicity.hub_classifier(str(wanted.hub))


def _reward_model_rater(name: str, models: Models, settings: RaterSettings) -> RewardModelRater:
    model = open_reward_model(name, models, settings.dtype, settings.quantize)
    if model.config.vocabulary_size != settings.vocabulary_size:
        raise ConfigError(
            f"The reward model {name!r} has another vocabulary than the policy: expected {settings.vocabulary_size} "
            f"ids, got {model.config.vocabulary_size}. It scores token ids, so it must come from the same tokenizer."
        )
    called = name if name in models.inputs else Path(models.model_source(name)).name
    return RewardModelRater(called, model, settings.micro_batch_size)


def gold_rater(built_in: Task | None) -> GoldRater:
    """The gold reward of a built-in task.

    Raises:
        ConfigError: there is none.
    """
    if built_in is None:
        raise ConfigError(
            "The gold reward is known for the built-in task only. Use `data: {task: ...}`, or name another rater."
        )
    return GoldRater(built_in)


def task_of(data: str | FileData | TaskData) -> Task | None:
    """The built-in task that a stage's `data` is from, or None."""
    return task(data.task) if isinstance(data, TaskData) else None


def _need_one(source: str, parts: Mapping[str, np.ndarray], prompts: Sequence[Prompt]) -> None:
    """Raise for a response to which no part applies."""
    nowhere = np.isnan(np.array(list(parts.values()))).all(axis=0)
    if nowhere.any():
        prompt = prompts[int(np.argmax(nowhere))]
        raise DataError(
            f"{prompt.origin}: the reward {source} is None for a response to the prompt {prompt_text(prompt)[:200]!r}, "
            "so nothing scores it. Expected a number, or in a sum another part that applies."
        )


def _bounds_of_sum(
    bounds: Sequence[tuple[float, float] | None], weights: Sequence[float]
) -> tuple[float, float] | None:
    ends = [
        sorted((weight * one[0], weight * one[1]))
        for weight, one in zip(weights, bounds, strict=True)
        if one is not None
    ]
    return None if len(ends) < len(bounds) else (sum(low for low, _ in ends), sum(high for _, high in ends))
