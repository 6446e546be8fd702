"""`gemma-keras explain`: what it says of kinds, algorithms and keys, with and without a workflow."""

import re

import pytest

from pipelines import cli
from pipelines.host import paths
from pipelines.stages.registry import KINDS, algorithms
from pipelines.workflow.key_table import kind_blocks, workflow_block

pytestmark = pytest.mark.no_backend

WORKFLOW = """\
name: w
stages:
  policy:
    kind: policy_optimization
    reward:
      - {reward: exact_answer, weight: 0.5}
      - {reward: answer_format}
    data: {path: rows.jsonl, limit: 9}
    kl_weight: 0.2
  reward:
    kind: reward_modeling
    data: pairs
    lora: {rank: 4}
  other:
    kind: policy_optimization
    kl_wieght: 0.3
"""


@pytest.fixture
def say(capsys, tmp_path, monkeypatch):
    """Runs `explain` beside `w.yaml`, gives what it prints."""
    (tmp_path / "w.yaml").write_text(WORKFLOW)
    monkeypatch.chdir(tmp_path)

    def run(*words):
        assert cli.main(["explain", *words]) == 0
        return capsys.readouterr().out

    return run


@pytest.fixture
def complain(say, capsys):
    """Runs `explain` where it must fail, gives the one line."""

    def run(*words):
        assert cli.main(["explain", *words]) == 2
        captured = capsys.readouterr()
        assert captured.out == "" and captured.err.count("\n") == 1
        return captured.err.removeprefix("error: ").rstrip("\n")

    return run


def test_alone_it_lists_kinds_and_algorithms_with_a_line_each(say):
    lines = say().splitlines()
    kinds = lines[lines.index("## Kinds of stages") + 2 : lines.index("## Algorithms") - 1]
    assert [line.split("`")[1] for line in kinds] == list(KINDS)
    assert "- `pretraining`: Next-token training on packed plain text" in kinds
    assert "- `rloo`, of `policy_optimization`: the baseline is the mean of the prompt's other samples" in lines


KL_WEIGHT = """\
## `kl_weight`

Weight of the KL to the starting model.

- in: `policy_optimization`
- type: number
- default: 0.05
- range: at least 0
"""


@pytest.mark.parametrize("word", ["kl_weight", "stages.policy.kl_weight", "policy_optimization.kl_weight"])
def test_a_key_under_each_of_its_names(say, word):
    assert say(word) == KL_WEIGHT


def test_a_key_in_a_block_and_what_is_not_given_is_left_out(say):
    expected = (
        "## `lora.alpha`\n\nThe product is scaled by alpha / rank; default the rank.\n\n"
        "- in: `lora: {rank: …}` of `reward_modeling`\n- type: number\n- range: over 0\n"
    )
    assert say("reward_modeling.lora.alpha") == expected
    assert say("alpha").startswith("## `lora.alpha`\n"), "by its end, as no key has that path"


def test_a_key_that_kinds_have_with_another_meaning_is_said_once_a_meaning(say):
    text = say("batch_size")
    assert text.count("## `batch_size`") == 2
    updated, sampled = (set(re.findall(r"`(\w+)`", part.split("- in: ")[1])) for part in text.split("## ")[1:])
    assert updated >= {"pretraining", "instruction_tuning", "reward_modeling"}
    assert sampled >= {"preference_collection", "best_of_n", "evaluation"} and not sampled & updated


def test_a_key_of_the_workflow_itself_and_one_with_blocks(say):
    assert "- in: the workflow\n- type: text\n- default: needed\n" in say("name")
    assert "Decoder blocks. Default 18." in say("model.config.num_layers")
    text = say("policy_optimization.data")
    assert "- type: text, `{path: …}` or `{task: small_world}`\n- default: needed\n" in text
    assert "\n### `data: {path: …}`\n" in text and "\n### `data: {task: small_world}`\n" in text


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_kind_with_what_it_reads_and_leaves_and_every_key(say, kind):
    text = say(kind)
    for block, key in kind_blocks()[kind].all_keys():
        heading = f"### `{block.title}`\n" if block.title else f"## `{kind}`\n"
        section = re.split(r"^##", text.split(f"\n{heading}" if block.title else heading)[1], flags=re.MULTILINE)[0]
        rows = [row for row in section.splitlines() if row.startswith(f"| `{key.name}` ")]
        assert len(rows) == 1 and _is_of(rows[0], key), rows
    product = KINDS[kind].produces
    assert f"Leaves for other stages: {product.replace('_', ' ') if product else 'nothing'}." in text


def _is_of(row, key):
    _, takes, meaning = (cell.strip() for cell in row.strip("|").split("|"))
    parts = (key.type, key.range, key.default)
    return meaning == key.meaning and takes.startswith(key.type) and all(part in takes for part in parts)


def test_what_a_kind_reads_follows_from_its_names(say):
    said = "Reads: reward model or a function (`reward`), preferences (`data`), policy (`from`).\n"
    assert said in say("policy_optimization")
    said = "(`compare`), preferences (`data`), reward model or a function (`judge`), policy (`reference`).\n"
    assert f"Reads: policy {said}" in say("evaluation")


def test_a_name_that_tells_a_block_from_others_is_that_block(say):
    text = say("small_world")
    assert text.startswith("## `data: {task: small_world}`\n\nExamples of the built-in task, generated, never read.\n")
    first, *of_lists = text.split("\n## ")
    assert "`evaluation`" in first.splitlines()[4] and "| `size` " in first
    assert of_lists and all(re.match(r"`\w+: (- )?{task: small_world(, weight: …)?}`\n", one) for one in of_lists)


@pytest.mark.parametrize("name", list(algorithms()))
def test_an_algorithm_is_its_page(say, name, repository):
    page = (repository / algorithms()[name][1].page).read_text(encoding="utf-8")
    text = say(name)
    for line in page.splitlines():
        if not line.startswith(("|", "<!--")):
            assert line in text
    assert "<!--" not in text and "| `data` " in text


def test_a_kind_with_a_page_has_it_before_its_keys(say, repository):
    page = (repository / "docs/algorithms/best_of_n.md").read_text(encoding="utf-8")
    text = say("best_of_n")
    assert text.startswith(page[:500]) and "\n## `best_of_n`\n" in text


def test_without_its_page_an_algorithm_says_what_its_class_does(say, monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "PACKAGE", tmp_path / "pipelines")
    text = say("rloo")
    assert text.startswith("# rloo\n\nThe baseline is the mean of the prompt's other samples.\n\n## Keys\n")
    assert "| `kl_weight` " in text and "- `clip_ratio`: share of responses" in text
    (tmp_path / "pipelines/docs/algorithms").mkdir(parents=True)
    (tmp_path / "pipelines/docs/algorithms/rloo.md").write_text("as in the wheel\n")
    assert say("rloo") == "as in the wheel\n"


@pytest.mark.parametrize(
    ("word", "lines"),
    [
        (
            "kl_weight",
            [
                "- w.yaml:9:16: `stages.policy.kl_weight: 0.2`",
                "- w.yaml:14:3: `stages.other.kl_weight` is not set, so it is 0.05",
            ],
        ),
        ("stages.policy.kl_weight", ["- w.yaml:9:16: `stages.policy.kl_weight: 0.2`"]),
        ("policy.kl_weight", ["- w.yaml:9:16: `stages.policy.kl_weight: 0.2`"]),
        ("stages.policy.data.limit", ["- w.yaml:8:37: `stages.policy.data.limit: 9`"]),
        ("stages.policy.lora.rank", ["- w.yaml:3:3: `stages.policy.lora` is not set"]),
        ("stages.reward.lora.rank", ["- w.yaml:13:18: `stages.reward.lora.rank: 4`"]),
        ("stages.reward.data.path", ['- w.yaml:12:11: `stages.reward.data: "pairs"`']),
        (
            "reward.weight",
            [
                "- w.yaml:6:40: `stages.policy.reward.0.weight: 0.5`",
                "- w.yaml:7:9: `stages.policy.reward.1.weight` is not set, so it is 1",
                "- w.yaml:14:3: `stages.other.reward` is not set",
            ],
        ),
        ("seed", ["- w.yaml:1:1: `seed` is not set, so it is 0"]),
        ("name", ['- w.yaml:1:7: `name: "w"`']),
        ("compare", ["- w.yaml: no stage there has it"]),
    ],
)
def test_in_a_workflow_a_key_has_its_values_and_their_places(say, word, lines):
    """A workflow that `validate` refuses is explained all the same."""
    assert [line for line in say("w.yaml", word).splitlines() if line.startswith("- w.yaml")] == lines


def test_in_a_workflow_only_the_block_that_stands_there_is_meant(say):
    text = say("w.yaml", "stages.policy.data.split")
    assert "`data: {path: …}`" in text and "`data: {task: small_world}`" not in text
    assert "- in: `policy_optimization`\n" in say("w.yaml", "kl_weight")
    assert say("w.yaml", "stages.policy") == say("w.yaml", "policy") == say("policy_optimization")
    assert say("w.yaml", "stages.reward") == say("reward_modeling")
    assert "## `reward`" in say("w.yaml", "reward"), "a stage is called like a key, which is meant"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["kl_wieght"], "'kl_wieght' is no kind of stage, no algorithm and no key. Did you mean 'kl_weight'? "
                        "`gemma-keras explain` says what there is"),
        (["stages.policy.kl_wieght"], "Did you mean 'stages.policy.kl_weight'?"),
        (["evaluation.judg"], "Did you mean 'evaluation.judge'?"),
        (["instruction_tunin"], "Did you mean 'instruction_tuning'?"),
        (["rlo"], "Did you mean 'rloo'?"),
        (["sft"], "Here that is `kind: instruction_tuning`."),
        (["lora.rnk"], "Did you mean 'lora.rank'?"),
        ([""], "'' is no kind of stage"),
        (["0"], "'0' is no kind of stage"),
        (["w.yaml", "stages.polcy.kl_weight"],
         "w.yaml:2:1: no stage 'polcy'. Did you mean 'policy'? Stages: policy, reward, other"),
        (["w.yaml", "stages.reward.kl_weight"], "'stages.reward.kl_weight' is no kind of stage"),
        (["w.yaml"], "w.yaml: which key of it? E.g. gemma-keras explain w.yaml learning_rate"),
        (["w.yaml", "a", "b"], "explain w.yaml a b: expected a word, or a workflow file and a word"),
        (["x.yaml", "seed"], "x.yaml: cannot read the workflow file (No such file or directory)"),
        (["list.yaml", "seed"], "list.yaml:1:1: expected a mapping with name and stages, got a list"),
        (["kind.yaml", "stages.a.seed"], "kind.yaml:1:20: unknown kind 'sft'. Here that is `kind: instruction_tuni"),
    ],
)  # fmt: skip
def test_what_is_unknown_is_answered_with_what_may_be_meant(complain, words, message, tmp_path):
    (tmp_path / "list.yaml").write_text("[1]")
    (tmp_path / "kind.yaml").write_text("stages: {a: {kind: sft}}")
    assert message in complain(*words)


def test_every_key_is_found_by_its_path():
    from pipelines.commands.key_search import find

    for owner, block in {"": workflow_block(), **kind_blocks()}.items():
        for _, key in block.all_keys():
            word = ".".join([owner, *key.path] if owner else key.path)
            assert (owner, key) in [(found.owner, found.key) for found in find(word)], word


def test_on_a_terminal_it_is_rendered(say, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")  # which has 80 columns
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    text = say("kl_weight")
    assert "##" not in text and " • default: 0.05" in text
    table = say("preference_collection")
    assert "---" not in table and "──" in table and "\\<" not in table
    for key in kind_blocks()["preference_collection"].keys:
        assert f" {key.name} " in table, "cut"
