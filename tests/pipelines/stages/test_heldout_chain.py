"""What stages hold out is new to them and to every stage before them, also where prompts repeat in a file.

Training is left out: what would be trained and measured on is caught on its way there.
"""

import random
import re

import pytest
from stage_fixture import WORDS, make_context, read_jsonl, stage_config, tiny_tuned_model, write_jsonl

from pipelines.data.contents import SEEN_FILE
from pipelines.host.errors import ConfigError, DataError
from pipelines.stages.instruction_tuning import run as instruction_tuning
from pipelines.stages.policy_optimization import run as policy_optimization
from pipelines.stages.preference_optimization import run as preference_optimization
from pipelines.stages.reward_modeling import run as reward_modeling

REWARD_FIGURES = {"accuracy": 0.5}


def said(text):
    """A prompt's content, worked out here."""
    return " ".join(re.findall(r"[a-z]+", text.lower()))


@pytest.fixture(scope="module")
def rows():
    """120 rows of 40 prompts, in three spellings each."""
    prompts = [f"{a} {b}" for a in WORDS for b in WORDS if a < b][:40]
    spellings = (str, str.upper, lambda text: f"  {text}!?")
    found = [
        {"prompt": spell(prompt), "completion": "cat", "chosen": "cat", "rejected": "dog"}
        for prompt in prompts
        for spell in spellings
    ]
    random.Random(0).shuffle(found)
    return found


class Chain:
    """Stages in one folder; each leaves the contents that it trains on and those that it holds out."""

    def __init__(self, folder, patch, rows):
        self.folder, self.data = folder, {"path": write_jsonl(folder / "rows.jsonl", rows)}
        self.inputs = {"base": tiny_tuned_model(folder / "base")}
        self.sides, self.figures, self.warnings = {}, {}, {}
        patch.setattr(instruction_tuning, "train_language_model", self._catch_texts)
        patch.setattr(reward_modeling, "train_on_pairs", self._catch_texts)
        patch.setattr(reward_modeling, "measure_on_pairs", lambda scorer, pairs, *rest: REWARD_FIGURES)
        patch.setattr(preference_optimization, "train_policy", self._catch_pairs)
        patch.setattr(preference_optimization, "_measure", lambda *arguments: {})
        patch.setattr(policy_optimization, "_train", self._catch_prompts)

    def run(self, module, name, **options):
        kind = module.__name__.split(".")[-2]
        context = make_context(self.folder, name, inputs=self.inputs, seed=options.pop("seed", 11))
        config = stage_config(kind, **{"data": self.data, "max_length": 64, **options})
        self.figures[name] = module.run(config, context)
        self.inputs[name], self.warnings[name] = context.output, context.warnings
        return self.sides[name]

    def _catch_texts(self, model, training, heldout, config, context, save, *rest):
        def contents(examples):
            return {
                self._prompt(model.tokenizer, getattr(one, "prompt_ids", None) or one.token_ids) for one in examples
            }

        self.sides[context.name] = contents(training), contents(heldout)
        return {}

    def _catch_pairs(self, model, training, heldout, config, context, save):
        self.sides[context.name] = tuple(
            {self._prompt(model.tokenizer, chosen.token_ids[: -chosen.length]) for chosen, _ in part.items}
            for part in (training, heldout)
        )
        return {}

    def _catch_prompts(self, players, evaluation, rows, config, context, save):
        texts = [said(example.prompt) for example in players.drawing.prompts.examples]
        assert len(set(evaluation.rows.tolist())) == len({texts[i] for i in evaluation.rows}), "a prompt counts once"
        self.sides[context.name] = {texts[i] for i in rows}, {texts[i] for i in evaluation.rows}
        figures = {f"eval_{name}": 0.0 for name in ("reward", "kl", "kl_sequence")}
        return [figures], {}

    @staticmethod
    def _prompt(tokenizer, ids):
        return said(tokenizer.decode(list(ids)).split("user")[1].split("model")[0])


@pytest.fixture(scope="module")
def chain(tmp_path_factory, rows):
    with pytest.MonkeyPatch.context() as patch:
        chain = Chain(tmp_path_factory.mktemp("chain"), patch, rows)
        chain.run(instruction_tuning, "sft", **{"from": "base", "heldout_fraction": 0.3})
        chain.run(instruction_tuning, "control", **{"from": "sft", "heldout_fraction": 0.1})
        chain.run(reward_modeling, "reward", **{"from": "sft", "heldout_fraction": 0.2, "normalize_prompts": 0})
        chain.run(preference_optimization, "pairs", loss="cpo", **{"from": "sft", "heldout_fraction": 0.2})
        chain.run(
            policy_optimization, "policy", reward="reward", eval_prompts=4, max_new_tokens=4, seed=12, **{"from": "sft"}
        )
        yield chain


def test_no_content_is_held_out_that_the_stage_or_one_before_it_trained_on(chain):
    before = {"sft": (), "control": ("sft",), "reward": ("sft",), "pairs": ("sft",), "policy": ("sft", "reward")}
    for name, ancestors in before.items():
        trained = set().union(*(chain.sides[one][0] for one in (name, *ancestors)))
        assert chain.sides[name][1] and not chain.sides[name][1] & trained, name
        assert chain.figures[name]["heldout_seen_before"] == 0 and not chain.warnings[name]
    assert [len(chain.sides[name][1]) for name in before] == [12, 4, 8, 8, 4]
    # One draw: a later stage keeps what an earlier one held out.
    assert chain.sides["control"][1] < chain.sides["reward"][1] < chain.sides["sft"][1]


def test_where_nothing_is_new_it_is_said(chain):
    chain.run(instruction_tuning, "everything", **{"from": "base", "heldout_fraction": 0.0})
    chain.run(instruction_tuning, "after", **{"from": "everything", "heldout_fraction": 0.1})
    assert chain.figures["after"]["heldout_seen_before"] == 12
    assert chain.warnings["after"] == ["12 of 12 held-out prompts were trained on by an earlier stage"]


def test_data_can_be_kept_disjoint_from_other_stages(chain):
    data = {**chain.data, "disjoint_from": ["control"]}
    training, heldout = chain.run(instruction_tuning, "apart", data=data, **{"from": "base"})
    assert training | heldout == chain.sides["control"][1] and chain.sides["control"][1]
    # Each prompt has three rows, in another case or with another mark.
    assert {"step": 0, "left_out_rows": 120 - 3 * 4} in read_jsonl(chain.inputs["apart"] / "metrics.jsonl")
    with pytest.raises(DataError, match="all 120 prompts were seen by everything"):
        chain.run(instruction_tuning, "none", data={**chain.data, "disjoint_from": ["everything"]}, **{"from": "base"})
    with pytest.raises(ConfigError, match="'base' keeps no record of its prompts"):
        chain.run(instruction_tuning, "unknown", data={**chain.data, "disjoint_from": ["base"]}, **{"from": "base"})


def test_one_prompt_cannot_be_held_out(chain, tmp_path):
    data = {"path": write_jsonl(tmp_path / "one.jsonl", [{"prompt": "cat"}, {"prompt": "Cat!"}])}
    with pytest.raises(DataError, match="its 2 prompts have one content"):
        chain.run(
            policy_optimization, "one", reward="reward", data=data, max_new_tokens=4, **{"from": "sft"}
        )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "before"),
    [("sft", ()), ("control", ("sft",)), ("reward", ("sft",)), ("pairs", ("sft",)), ("policy", ("sft", "reward"))],
)
def test_the_record_lies_beside_the_weights(chain, name, before):
    lines = (chain.inputs[name] / "model" / SEEN_FILE).read_text(encoding="utf-8").splitlines()
    contents = [line for line in lines if line.startswith("c:")]
    trained = set().union(*(chain.sides[one][0] for one in (*before, name)))
    assert len(contents) == len(trained) and lines == sorted(lines)
