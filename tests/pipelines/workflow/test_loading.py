"""Loading: typed stages, overrides, references between stages, every error at once with its place."""

import json
from pathlib import Path

import pytest

from pipelines.host.errors import ConfigError, DataError
from pipelines.schema.data import FileData
from pipelines.stages import registry
from pipelines.stages.policy_optimization.methods.registry import OPTIONS
from pipelines.stages.registry import KINDS
from pipelines.workflow import loading as workflow
from pipelines.workflow import yaml_reader
from pipelines.workflow.data_checks import check_data

pytestmark = pytest.mark.no_backend

GSM8K = """\
name: gsm8k
seed: 17
model: google/gemma-3-270m
stages:
  sft:
    kind: instruction_tuning
    data: {path: openai/gsm8k, config: main, split: train, prompt: question, completion: answer}
    learning_rate: 2e-5
  preferences:
    kind: preference_collection
    from: sft
    data: {path: openai/gsm8k, config: main, split: train, prompt: question, answer: answer}
    rater: exact_answer
  reward:
    kind: reward_modeling
    from: sft
    data: preferences
  policy:
    kind: policy_optimization
    from: sft
    reward: reward
    data: {path: openai/gsm8k, config: main, split: train, prompt: question, answer: answer}
  evaluation:
    kind: evaluation
    compare: [sft, policy]
    data: {path: openai/gsm8k, config: main, split: test, prompt: question, answer: answer}
    judge: reward_model:reward
"""


@pytest.fixture
def load(tmp_path):
    def load(text=GSM8K, *overrides, backend=None):
        path = tmp_path / "w.yaml"
        path.write_text(text)
        return workflow.load(path, overrides, backend)

    return load


def errors(load, *arguments):
    with pytest.raises(ConfigError) as caught:
        load(*arguments)
    return str(caught.value).splitlines()


def test_the_design_s_example_is_typed(load):
    loaded = load().workflow
    assert list(loaded.stages) == ["sft", "preferences", "reward", "policy", "evaluation"]
    sft, policy = loaded.stages["sft"], loaded.stages["policy"]
    assert isinstance(sft, KINDS["instruction_tuning"]) and isinstance(policy, KINDS["policy_optimization"])
    assert (sft.learning_rate, sft.from_, policy.from_, policy.kl_weight) == (2e-5, None, "sft", 0.05)
    assert sft.data == FileData(
        path="openai/gsm8k", config="main", split="train", prompt="question", completion="answer"
    )


def test_what_the_run_folder_gets_is_the_same_workflow(load):
    loaded = load()
    again = load(yaml_reader.dump(loaded.as_data()))
    assert again.workflow == loaded.workflow


def test_overrides(load):
    loaded = load(
        GSM8K,
        "stages.sft.learning_rate=1e-6",
        "seed=5",
        "stages.evaluation.compare.1=sft",
        "stages.evaluation.compare.0=policy",
        "state.every_seconds=0",
    )
    assert (loaded.workflow.state.every_seconds, loaded.workflow.state.keep) == (0, 2)
    assert loaded.workflow.stages["sft"].learning_rate == 1e-6
    assert loaded.workflow.seed == 5
    assert loaded.workflow.stages["evaluation"].compare == ["policy", "sft"]


def test_an_algorithm_is_a_name_or_a_mapping_with_it(load):
    """And is written back as the name where it has no options."""
    written = [
        load(GSM8K.replace("reward: reward\n", f"reward: reward\n    algorithm: {text}\n"), *overrides)
        for text, overrides in (
            ("reinforce", ()),
            ("{name: reinforce}", ()),
            ("rloo", ("stages.policy.algorithm.name=reinforce",)),
            ("rloo", ("stages.policy.algorithm={name: reinforce}",)),
        )
    ]
    assert [one.workflow.stages["policy"].algorithm.name for one in written] == ["reinforce"] * 4
    assert [one.as_data()["stages"]["policy"]["algorithm"] for one in written] == ["reinforce"] * 4
    assert load().as_data()["stages"]["policy"]["algorithm"] == {"name": "rloo", "kl_credit": "sequence"}
    text = GSM8K.replace("reward: reward\n", "reward: reward\n    algorithm: grpo\n")
    loaded = load(text, "stages.policy.algorithm.ratio=sequence")
    assert loaded.where(("stages", "policy", "algorithm", "ratio")) == "--set stages.policy.algorithm.ratio=sequence"
    assert loaded.as_data()["stages"]["policy"]["algorithm"] == {
        "name": "grpo", "standard_deviation": True, "aggregation": "tokens", "ratio": "sequence", "kl_in": "reward",
        "drop_equal_groups": False, "redraws": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stages.sftt.epochs=1", "there is no stage 'sftt'. Did you mean 'sft'?"),
        ("stat.keep=1", "there is no key 'stat'."),
        ("state.kep=1", "unknown key 'kep'. Did you mean 'keep'?"),
        ("stages.sft.epoch=1", "--set stages.sft.epoch=1: unknown key 'epoch'. Did you mean 'epochs'?"),
        ("stages.sft.epochs=no", "`stages.sft.epochs`: expected a number, got the text 'no'"),
        ("stages.sft.learning_rate.x=1", "`stages.sft.learning_rate` is 2e-05, it has no key 'x'"),
        ("stages.evaluation.compare.7=sft", "is a list of 2; expected an index from 0, got '7'"),
        ("stages.policy.algorithm.decay=0.9", "unknown key 'decay'. Known here: name"),
        ("stages.policy.reward.x=1", "`stages.policy.reward` is the text 'reward', it has no key 'x'"),
        ("seed", "expected key=value"),
        ("seed=[1", "no valid YAML"),
        ("seed=!!python/name:os.system", "plain data"),
    ],
)
def test_wrong_overrides_name_themselves(load, override, message):
    (line,) = errors(load, GSM8K, override)
    assert line.startswith(f"--set {override}")
    assert message in line


def test_all_errors_at_once_in_the_order_of_the_file(load):
    text = (
        GSM8K.replace("seed: 17", "sead: 17")
        .replace("learning_rate: 2e-5", 'learning_rate: "2e-5"')
        .replace("reward: reward", "reward: rewrd")
    )
    text = text.replace("from: sft\n    reward", "frm: sft\n    reward").replace(
        "judge: reward_model:reward", "judge: reward_model:policy"
    )
    lines = errors(load, text)
    assert [line.partition("w.yaml:")[2].split(": ")[0] for line in lines] == ["2:1", "8:20", "20:5", "21:13", "27:12"]
    assert "unknown key 'sead'. Did you mean 'seed'?" in lines[0]
    assert "expected a number, got the text '2e-5'; remove the quotes" in lines[1]
    assert "unknown key 'frm'. Did you mean 'from'?" in lines[2]
    assert "'rewrd' is neither an earlier stage nor a model folder. Did you mean 'reward'?" in lines[3]
    assert "stage 'policy' is of kind policy_optimization; expected a stage of kind reward_modeling" in lines[4]


@pytest.mark.parametrize(
    ("old", "new", "place", "message"),
    [
        ("from: sft\n    data: {path", "from: policy\n    data: {path", "11:11",
         "'policy' comes later; expected an earlier stage: sft"),
        ("from: sft\n    data: preferences", "from: reward\n    data: preferences", "16:11",
         "stage 'reward' is this stage itself"),
        ("data: preferences", "data: sft", "17:11",
         "of kind instruction_tuning; expected a stage of kind data_filtering or preference_collection"),
        ("data: preferences", "data: preference", "17:11", "no stage 'preference'. Did you mean 'preferences'?"),
        ("compare: [sft, policy]", "compare: [sft, polcy]", "25:20", "nor a model folder. Did you mean 'policy'?"),
        ("compare: [sft, policy]", "compare: [sft, sft]", "25:14", "named twice"),
        ("compare: [sft, policy]", "compare: sft", "25:14", "expected a list, got the text 'sft'"),
        ("rater: exact_answer", "rater: exact_anser", "13:12",
         "unknown rater 'exact_anser'. Did you mean 'exact_answer'?"),
        ("rater: exact_answer", "rater: gold", "13:12", "the gold reward scores the built-in task only"),
        ("rater: exact_answer", "rater: reward_model:reward", "13:12", "stage 'reward' comes later"),
        ("answer: answer}\n    rater", "text: answer}\n    rater", "13:12", "exact_answer needs the known answers"),
        ("reward: reward", "reward: reward\n    algorithm: {name: grpo, aggregate: tokens}", "22:29",
         "unknown key 'aggregate'. Did you mean 'aggregation'? Known here: name, standard_deviation, aggregation,"),
        ("reward: reward", "reward: reward\n    algorithm: {name: grpo, ratio: tokens}", "22:36",
         "`stages.policy.algorithm.ratio`: expected token or sequence, got the text 'tokens'. Did you mean 'token'?"),
        ("reward: reward", "reward: reward\n    algorithm: {name: grpo, redraws: 2}", "22:38",
         "2, but no prompt is dropped; expected drop_equal_groups: true beside it, or 0"),
        ("reward: reward", "reward: reward\n    algorithm: {name: grpo, overlong_penalty: 65}", "22:47",
         "65 is over max_new_tokens 64; expected at most that"),
        ("reward: reward", "reward: reward\n    algorithm: {name: rloo, kl_credit: to_go}\n    inner_updates: 2",
         "23:20",
         "2, whose clip takes one advantage a response; expected 1 with kl_credit: to_go"),
        ("reward: reward", "reward: reward\n    algorithm: grpo\n    samples_per_prompt: 1", "23:25",
         "grpo compares the samples of a prompt; expected at least 2"),
        ("reward: reward", "reward: reward\n    algorithm: rlo", "22:16",
         "policy.algorithm`: expected rloo or reinforce or grpo or ppo, got the text 'rlo'. Did you mean 'rloo'?"),
        ("reward: reward", "reward: reward\n    algorithm: {name: rlo}", "22:23",
         "algorithm.name`: expected rloo or reinforce or grpo or ppo, got the text 'rlo'. Did you mean 'rloo'?"),
        ("reward: reward", "reward: reward\n    algorithm: {nme: rloo}", "22:5",
         "missing key 'name'; expected one of rloo, reinforce, grpo, ppo"),
        ("reward: reward", "reward: reward\n    algorithm: {name: rloo, decay: 0.9}", "22:29",
         "unknown key 'decay'. Known here: name"),
        ("reward: reward", "reward: reward\n    algorithm: 4", "22:16", "or reinforce or grpo or ppo, got 4"),
        ("reward: reward", "reward: reward\n    samples_per_prompt: 1", "22:25", "expected at least 2"),
        ("reward: reward", "reward: [{reward: reward}, {reward: nope, weight: 2}]", "21:41", "'nope' is neither"),
        ("reward: reward\n", "reward: []\n", "21:13", "at least 1 item"),
        ("reward: reward\n", "gold: task\n    reward: reward\n", "21:11", "built-in task only"),
        ("reward: reward\n", "reward: reward\n    max_length: 64\n", "18:3", "leaves no room for a prompt"),
        ("reward: reward\n", "reward: reward\n    lora: {dropout: 0.1}\n", "22:21",
         "0.1 in policy optimization; expected 0"),
        ("reward: reward\n", "reward: reward\n    rollout_dtype: int8\n    lora: {quantize: int4}\n", "22:20",
         "int8 beside lora.quantize int4: a copy would hold the kernels twice"),
        ("reward: reward\n", "reward: reward\n    stop_when: {kl: 10}\n", "22:17",
         "unknown key 'kl'. Known here: kl_sequence"),
        ("reward: reward\n", "reward: reward\n    stop_when: {kl_sequence: 0}\n", "22:30",
         "expected greater than 0, got 0"),
        ("reward: reward\n", "reward: reward\n    rollout_dtype: int4\n", "22:20", "expected bfloat16 or int8"),
        ("reward: reward\n", "reward: reward\n    importance_limit: 0.5\n", "22:23",
         "expected greater than or equal to 1"),
        ("learning_rate: 2e-5", "lora: {rank: 4, targets: [query, qproj]}", "8:30",
         "some of q_proj, k_proj, v_proj, o_proj"),
        ("learning_rate: 2e-5", "lora: {rank: 0}", "8:18", "expected greater than or equal to 1, got 0"),
        ("learning_rate: 2e-5", "lora: {rnk: 4}", "8:12", "unknown key 'rnk'. Did you mean 'rank'?"),
        ("learning_rate: 2e-5", "lora: 4", "8:11", "expected a mapping"),
        ("learning_rate: 2e-5", "dtype: bfloat16", "8:12", "expected mixed_bfloat16, or an adapter over them: lora"),
        ("kind: evaluation", "kind: evalution", "24:11", "unknown kind 'evalution'. Did you mean 'evaluation'?"),
        ("    kind: evaluation\n", "", "23:3", "missing key 'kind'"),
        ("    compare: [sft, policy]\n", "", "23:3", "missing key 'compare': Stages or model folders"),
        ("model: google/gemma-3-270m\n", "", "4:3", "starts from no model"),
        ("google/gemma-3-270m", "./nowhere", "3:8", "no folder or file './nowhere'"),
        ("google/gemma-3-270m", "gemma3_270n", "3:8", "Did you mean 'gemma3_270m'?"),
        ("google/gemma-3-270m", "vault_gemma_1b_en", "3:8", "VaultGemma is an architecture of its own"),
        ("google/gemma-3-270m", "hf://nowhere", "3:8", "hf://nowhere: no such folder or file"),
        ("google/gemma-3-270m", "kaggle://keras/gemma4/keras/gemma4_2b", "3:8", "Gemma 4 is another architecture"),
        ("google/gemma-3-270m", "{config: {num_layers: 2}}", "5:3", "cannot start from random weights"),
        ("google/gemma-3-270m", "{config: {num_layer: 2}}", "3:18",
         "unknown key 'num_layer'. Did you mean 'num_layers'?"),
        ("google/gemma-3-270m", "{config: {num_query_heads: 3, num_key_value_heads: 2}}", "3:17", "must divide"),
        ("seed: 17", "backend: jaxx", "2:10",
         "expected jax or tensorflow or torch, got the text 'jaxx'. Did you mean 'jax'?"),
        ("split: train, prompt: question, completion", "splt: train, prompt: question, completion", "7:46",
         "Did you mean 'split'?"),
        ("data: {path: openai/gsm8k, config: main, split: train, prompt: question, completion: answer}",
         "data: {task: small_world, split: sftt, size: 3}", "7:38", "Did you mean 'sft'?"),
        ("data: preferences", "data: {task: small_world, split: preferences, size: 3}", "17:11",
         "expected a preference_collection stage, or a file with chosen and rejected; the built-in task has no "
         "preferences until such a stage collects them"),
        ("kind: reward_modeling\n    from: sft\n    data: preferences",
         "kind: preference_optimization\n    from: sft\n    data: {task: small_world, split: preferences, size: 3}",
         "17:11", "the built-in task has no preferences until such a stage collects them"),
        ("path: openai/gsm8k, config: main,", "path: openai/gsm8k@v2, revision: v1,", "7:45",
         "'openai/gsm8k@v2' names a revision too; leave one of the two out"),
        ("data: preferences", "data: [1]", "17:11", "expected a mapping, got a list"),
        ("  sft:\n", "  SFT:\n", "5:3", "'SFT' is no stage name"),
        ("learning_rate: 2e-5", "batch_size: 2\n    micro_batch_size: 4", "9:23", "over batch_size 2"),
    ],
)  # fmt: skip
def test_each_error_has_place_and_advice(load, old, new, place, message):
    assert old in GSM8K
    lines = errors(load, GSM8K.replace(old, new, 1))
    assert any(f"w.yaml:{place}: " in line and message in line for line in lines), lines


def test_folders_and_files_become_absolute(load, tmp_path):
    model = tmp_path / "other" / "sft" / "model"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (tmp_path / "rows.jsonl").write_text('{"question": "q", "answer": "a"}\n')
    text = GSM8K.replace("from: sft", "from: other/sft", 1).replace(
        "path: openai/gsm8k, config: main, split: train", "path: rows.jsonl", 1
    )
    loaded = load(text)
    assert loaded.workflow.stages["preferences"].from_ == str(tmp_path / "other/sft")
    assert loaded.workflow.stages["sft"].data.path == str(tmp_path / "rows.jsonl")
    check_data(loaded)


def test_names_are_looked_up_beside_the_file_then_in_the_current_folder(load, tmp_path, monkeypatch):
    here = tmp_path / "here"
    (here / "m").mkdir(parents=True)
    (here / "m" / "config.json").write_text("{}")
    monkeypatch.chdir(here)
    assert load(GSM8K.replace("from: sft", "from: m", 1)).workflow.stages["preferences"].from_ == str(here / "m")


def test_scratch_model_for_pretraining(load):
    text = """\
name: tiny
model: {config: {num_layers: 2, hidden_dim: 16, local_layers: [true, false], sliding_window: 4},
    tokenizer: {vocabulary_size: 400}}
stages:
  base:
    kind: pretraining
    data: {task: small_world, split: pretraining, size: 100}
"""
    model = load(text).workflow.model
    assert model.gemma_config().vocabulary_size == 400
    assert model.gemma_config(123).vocabulary_size == 123
    assert (model.gemma_config().num_layers, model.gemma_config().local_layers) == (2, (True, False))


def test_backend_option_beats_the_file(load, all_backends):
    loaded = load(
        GSM8K.replace("seed: 17", "backend: jax").replace("kind: evaluation", "kind: evaluation\n    backend: torch"),
        backend="tensorflow",
    )
    assert {workflow.stage_backend(loaded.workflow, name) for name in loaded.workflow.stages} == {"tensorflow"}


def test_backend_order(load, monkeypatch, all_backends):
    loaded = load(GSM8K.replace("kind: evaluation", "kind: evaluation\n    backend: torch")).workflow
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    assert workflow.stage_backend(loaded, "sft") == "tensorflow"
    assert workflow.stage_backend(loaded, "evaluation") == "torch"


def test_a_backend_that_is_not_installed_says_how_to_install_it(load, monkeypatch):
    monkeypatch.setattr(workflow.backend_choice, "installed_backends", lambda: ("jax",))
    (line,) = errors(load, GSM8K.replace("seed: 17", "backend: torch"))
    assert line.endswith(
        "w.yaml:2:10: Backend 'torch' (requested) is not installed. Run: pip install 'torch>=2.9', "
        "or choose one that is installed: jax (--backend jax)"
    )
    monkeypatch.setenv("KERAS_BACKEND", "bogus")
    (line,) = errors(load)
    assert "Unknown backend 'bogus' (KERAS_BACKEND)" in line


def test_missing_workflow_file(tmp_path):
    with pytest.raises(ConfigError, match="no such workflow file"):
        workflow.load(tmp_path / "w.yaml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no data file 'rows.jsonl'"),
        ("", "rows.jsonl:1: no rows"),
        ('{"question": "q"', "rows.jsonl:1: cut off line"),
        (
            '{"queston": "q", "answer": "a"}\n',
            "rows.jsonl:1: no column 'question'. Did you mean 'queston'? Columns there: queston, answer",
        ),
    ],
)
def test_data_is_looked_at_before_the_run(load, tmp_path, content, message):
    if content is not None:
        (tmp_path / "rows.jsonl").write_text(content)
    loaded = load(GSM8K.replace("path: openai/gsm8k, config: main, split: train", "path: rows.jsonl", 1))
    with pytest.raises(DataError) as caught:
        check_data(loaded)
    assert message in str(caught.value)


def test_bad_rows_anywhere_stop_the_run_before_it_starts_or_are_set_aside_by_name(load, tmp_path):
    rows = [{"question": f"q{i}", "answer": "a"} for i in range(6)]
    rows[4]["answer"] = " "
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = GSM8K.replace("path: openai/gsm8k, config: main, split: train", "path: rows.jsonl")
    with pytest.raises(DataError) as caught:
        check_data(load(text))
    (first, *others) = str(caught.value).splitlines()
    assert first.startswith(f"{tmp_path}/rows.jsonl:5: column 'answer': the text is empty.")
    assert first.endswith("--set stages.sft.data.on_bad_row=lenient") and len(others) == 1
    notes = check_data(load(text.replace("path: rows.jsonl", "path: rows.jsonl, on_bad_row: lenient")))
    assert notes[0].startswith("stages.sft.data: 1 of 6 rows are set aside, the first ") and len(notes) == 3
    assert notes[2] == "left to `run`, as only JSON lines are read here: openai/gsm8k"


def test_the_registry_lists_the_folders_and_every_field_is_described():
    folders = {path.parent.name for path in Path(registry.__file__).parent.glob("*/config.py")}
    assert folders == set(KINDS)
    for kind, config in KINDS.items():
        undescribed = [name for name, field in config.model_fields.items() if name != "kind" and not field.description]
        assert not undescribed, (kind, undescribed)


def test_every_option_of_an_algorithm_is_described():
    fields = [(name, key, field) for name, one in OPTIONS.items() for key, field in one.model_fields.items()]
    assert fields and [(name, key) for name, key, field in fields if not field.description] == []
