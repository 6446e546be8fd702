"""Scorers of toxicity: what each counts, and that a reward model is the same one as a classifier of `transformers`."""

import json
import math

import numpy as np
import pytest
from filter_fixture import Surroundings, make_filter, of_text
from policy_fixture import world_reward_model

from gemma_keras import GemmaRewardModel
from gemma_keras.backends import to_host
from pipelines.host.errors import ConfigError
from pipelines.scoring import toxicity

pytestmark = pytest.mark.once
TEXTS = ["the words of the line", "Say it", "one two three four five six"]


@pytest.mark.needs("better_profanity")
def test_a_list_of_swear_words():
    """In whatever spelling, and of the continuation alone; hatred without them is not found."""
    score = toxicity.lexicon()
    assert score("what the hell", "a fine day") == 0.0 and score("a fine day", "what the sh1t") == 1.0
    assert score("", "they should all go back to where they came from") == 0.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = world_reward_model(tmp_path_factory.mktemp("reward")) / "model"
    about = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**about, "id2label": {"0": "toxic"}, "label2id": {"toxic": 0}}))
    return folder


def test_a_reward_model_is_a_classifier(folder):
    model = GemmaRewardModel.from_preset(folder)
    score = toxicity.classifier(model)
    for text in TEXTS:
        ids = [model.tokenizer.bos_token_id, *model.tokenizer.encode(text)]
        raw = float(to_host(model({"token_ids": np.array([ids])}))[0])
        assert score("anything", text) == pytest.approx(1 / (1 + math.exp(-raw)), abs=1e-5)
    assert len({score("", text) for text in TEXTS}) == 3


def test_a_filter_of_data_scores_by_the_same_model(folder):
    surroundings = Surroundings()
    surroundings.model_source = lambda name: folder
    score = toxicity.classifier(GemmaRewardModel.from_preset(folder))
    scores = sorted((score("", text), text) for text in TEXTS)
    threshold = (scores[0][0] + scores[1][0]) / 2  # over that of one text alone
    one = make_filter("toxicity", surroundings=surroundings, classifier="reward", threshold=threshold)
    assert [one.judge(of_text(text)).reason for _, text in scores] == ["", "toxic", "toxic"]
    assert surroundings.warnings == []


@pytest.mark.needs("transformers", "torch")
def test_a_classifier_of_transformers(folder, tmp_path):
    """The same folder by either way; labels that say nothing are refused."""
    ours, theirs = toxicity.classifier(GemmaRewardModel.from_preset(folder)), toxicity.hub_classifier(str(folder))
    for text in TEXTS:
        assert theirs("anything", text) == pytest.approx(ours("", text), abs=1e-5)
    about = json.loads((folder / "config.json").read_text())
    try:
        (folder / "config.json").write_text(json.dumps({**about, "id2label": {"0": "good"}, "label2id": {"good": 0}}))
        with pytest.raises(ConfigError, match="none of its labels says so: good"):
            toxicity.hub_classifier(str(folder))
    finally:
        (folder / "config.json").write_text(json.dumps(about))
    with pytest.raises(ConfigError, match="cannot be opened"):
        toxicity.hub_classifier(str(tmp_path / "nowhere"))
