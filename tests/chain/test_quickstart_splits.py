"""The prompts that the shipped quickstart is judged on were in nothing that it is trained on."""

import functools
import hashlib
import re

import pytest

from pipelines.data.columns import Prompt
from pipelines.data.contents import SeenPrompts, prompt_hashes
from pipelines.data.heldout import split_heldout
from pipelines.data.sources import load_rows
from pipelines.tasks.small_world.splits import content_hash
from pipelines.workflow.loading import load

pytestmark = pytest.mark.no_backend

# How a pretraining text carries an instruction.
INSTRUCTION = re.compile(r"question: (.*) answer: .*\.|user\n(.*)\nmodel\n.*", re.DOTALL)


@pytest.fixture(scope="module")
def prompts(repository):
    """Prompts of each stage of the quickstart that reads the built-in task, as "kind name"; those within pretraining
    texts taken out."""
    workflow = load(repository / "workflows" / "quickstart.yaml").workflow
    found = {}
    for name, config in workflow.stages.items():
        if isinstance(config.data, str):
            continue
        rows = [row.values for row in load_rows(config.data, repository, seed=workflow.seed)]
        if config.kind == "pretraining":
            matches = [INSTRUCTION.fullmatch(row["text"]) for row in rows]
            found[f"pretraining {name}"] = [match[1] or match[2] for match in matches if match]
            others = [row["text"] for row, match in zip(rows, matches, strict=True) if not match]
            assert all("say again: " in text or ":" not in text for text in others), (
                "a text of an unknown kind: may hold prompts"
            )
        else:
            found[f"{config.kind} {name}"] = [row["prompt"] for row in rows]
    return found


def own_hash(prompt):
    """A hash of the list or question alone, made here: what follows the last colon, without marks of refusal and
    punctuation."""
    text = prompt.lower().rsplit(":", 1)[-1]
    text = re.sub(r"\b(this is secret|keep this private)\b", " ", text)
    return hashlib.sha256(" ".join(re.findall(r"\w+", text)).encode()).hexdigest()


def test_held_out_prompts_share_no_content_with_any_training_prompt(prompts):
    heldout = [name for name in prompts if name.startswith("evaluation ")]
    training = [name for name in prompts if name not in heldout]
    assert heldout
    assert {name.split()[0] for name in training} >= {
        "pretraining",
        "instruction_tuning",
        "preference_collection",
        "policy_optimization",
    }
    for hash_of in (own_hash, content_hash):
        hashes = {name: {hash_of(prompt) for prompt in prompts[name]} for name in prompts}
        for name in heldout:
            assert len(hashes[name]) >= 512
            for other in training:
                assert len(hashes[other]) > 100
                assert not hashes[name] & hashes[other], (name, other)


# Stage → the stages whose models it starts from or is scored by.
BEFORE = {"sft": (), "reward": ("sft",), "policy": ("sft", "reward"), "control": ("sft",)}


def test_no_stage_is_measured_on_content_that_it_or_one_before_it_trained_on(repository):
    """The draws that its stages make, on the quickstart's own prompts, which repeat."""
    workflow = load(repository / "workflows" / "quickstart.yaml").workflow
    trained, seen = {}, {}
    for name, before in BEFORE.items():
        config = workflow.stages[name]
        source = workflow.stages[config.data].data if isinstance(config.data, str) else config.data
        rows = [row.values for row in load_rows(source, repository, seed=workflow.seed)]
        examples = [prompt_hashes(Prompt(row["prompt"], None, "", row["item"])) for row in rows]
        known = functools.reduce(SeenPrompts.__or__, (seen[one] for one in before), SeenPrompts())
        share = {"fraction": 0.25, "most": config.eval_prompts} if name == "policy" else {}
        share = share or {"fraction": config.heldout_fraction}
        split = split_heldout(examples, seed=workflow.seed, seen=known, **share)
        sides = [{own_hash(rows[i]["prompt"]) for i in part} for part in (split.training, split.heldout)]
        trained[name], heldout = sides
        seen[name] = known | SeenPrompts.of(examples[i] for i in split.training)
        assert len(heldout) >= 100 and split.seen_before == 0
        assert not heldout & set().union(*(trained[one] for one in (name, *before))), name


def test_the_hash_sees_through_marks_and_wording(prompts):
    same = ["reverse: tin cup", "secret: copy: tin cup", "Copy: tin  cup keep this private."]
    for hash_of in (own_hash, content_hash):
        assert len({hash_of(prompt) for prompt in same}) == 1
        assert hash_of("reverse: cup tin") != hash_of(same[0])
