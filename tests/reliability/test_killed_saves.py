"""Saves of the public API that are killed at every call to the file system: what stands there afterwards is the old
model or the new one, for us and for programs that know nothing of how it is done, and the next save leaves nothing
behind.

Each save runs in a forked process that is killed before its n-th call, for n from 0 until it ends by itself. The quick
tests count from where the new files begin to take their places.
"""

import errno
import functools
import itertools
import os
import re
import shutil

import numpy as np
import pytest
from killed_process import ends_by_itself

from gemma_keras import GemmaBackbone, GemmaCausalLM, GemmaConfig, GemmaRewardModel, GemmaTokenizer
from gemma_keras.backends import to_host
from gemma_keras.checkpoints import hugging_face_writer
from gemma_keras.checkpoints.errors import CheckpointError
from gemma_keras.files import finish_save, place_folder

pytestmark = [
    pytest.mark.fault("SIGKILL before every call of a save"),
    pytest.mark.once,
    pytest.mark.skipif(os.environ["KERAS_BACKEND"] != "torch", reason="JAX and TensorFlow hang in a forked process"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]

SIZES = {
    "hidden_dim": 8, "intermediate_dim": 16, "num_query_heads": 1, "num_key_value_heads": 1, "head_dim": 8,
}  # fmt: skip
HEADS = {
    "config.json": "",
    "adapter_config.json": "",
    "tokenizer_config.json": "token|chat_template",
}  # and what needs it
MINE = {"notes.txt": b"mine", ".git/HEAD": b"ref: main", "optimizer/step.npz": b"moments", "README.md": b"# mine"}


def files(folder) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def made(place, save) -> dict[str, bytes]:
    save(place)
    return files(place)


def put(folder, contents) -> None:
    for name, data in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def assert_no_mix(folder, old, new) -> None:
    """What another program finds: files of one side alone, and all of them where there is a configuration."""
    found = {name: data for name, data in files(folder).items() if name not in MINE and name[:2] not in (".s", ".w")}
    sides = [side for side in (old, new) if found.items() <= side.items()]
    assert sides, f"a mix: {sorted(found)}"
    for head, needing in HEADS.items():
        part, *whole = ({name for name in side if re.search(needing, name)} for side in (found, *sides))
        assert head not in found or part in whole, f"a part with {head}: {sorted(found)}"


def killed_everywhere(tmp_path, old, new, save, load, part="") -> int:
    """Kill `save` at every call, from `part` on as in `kill_before`; returns how many calls these are.

    Args:
        old, new: files by name that stand there before and after; no old ones: no folder either.
        load: what is read from a folder; gives the same where and only where the models are equal.
    """
    for name, contents in (("old", old), ("new", new)):
        put(tmp_path / name, contents)
    expected = {side: load(tmp_path / side) for side in ("old", "new") if (side == "new" or old)}
    outcomes = []
    place = tmp_path / "place"
    folder = place / "tuned"
    for n in itertools.count():
        place.mkdir()
        if old:
            put(folder, {**old, **MINE})
        if ends_by_itself(lambda: save(folder), n, part):
            break
        if folder.exists():
            assert_no_mix(folder, old, new)
        try:
            loaded = load(folder)
        except CheckpointError:
            assert not old and not folder.exists(), f"call {n}: nothing can be loaded"
            outcomes.append("none")
        else:
            outcomes.append(next(side for side, values in expected.items() if values == loaded))
        save(folder)
        assert [path.name for path in place.iterdir()] == ["tuned"], f"call {n}: left over beside the folder"
        assert files(folder) == {**new, **(MINE if old else {})}, f"call {n}"
        shutil.rmtree(place)
    assert files(folder) == {**new, **(MINE if old else {})}
    assert outcomes[0] == ("old" if old else "none") and outcomes[-1] == "new"
    assert outcomes == sorted(outcomes, key=outcomes[0].__ne__), "it was new, then old again"
    return n


def causal(seed: int, text: str, template: bool = False) -> GemmaCausalLM:
    tokenizer = GemmaTokenizer.train([text] * 9, 300)
    if template:
        tokenizer.chat_template, tokenizer.template_file = "<start_of_turn>{{ messages }}", True
    config = GemmaConfig(vocabulary_size=300, num_layers=1, **SIZES)
    return GemmaCausalLM(GemmaBackbone(config, seed=seed), tokenizer)


def digest(model) -> tuple:
    """All weights of a model, bit by bit, and its tokenizer."""
    weights = {name: to_host(variable.value).tobytes() for name, variable in model.backbone.named_variables().items()}
    return weights, model.tokenizer.model_proto, model.tokenizer.chat_template, model.config


def load_model(folder) -> tuple:
    return digest(GemmaCausalLM.from_preset(folder))


@pytest.fixture(scope="module")
def first():
    return causal(1, "one two three user model", template=True)


@pytest.fixture(scope="module")
def second():
    return causal(2, "red blue green user model")


def in_shards(monkeypatch, shard_bytes: float) -> None:
    write = functools.partial(hugging_face_writer.write_weights, shard_bytes=shard_bytes)
    monkeypatch.setattr(hugging_face_writer, "write_weights", write)


EVERY_CALL = pytest.param("", marks=pytest.mark.slow)


@pytest.mark.slow
def test_a_first_save(tmp_path, second, record_property):
    new = made(tmp_path / "made", second.save_to_preset)
    calls = killed_everywhere(tmp_path, {}, new, second.save_to_preset, load_model)
    record_property("cases", calls)
    assert calls > 30


@pytest.mark.slow
def test_a_save_over_another_model(tmp_path, first, second, record_property):
    old, new = made(tmp_path / "one", first.save_to_preset), made(tmp_path / "two", second.save_to_preset)
    assert "chat_template.jinja" in old and "chat_template.jinja" not in new
    calls = killed_everywhere(tmp_path, old, new, second.save_to_preset, load_model)
    record_property("cases", calls)
    assert calls > 60


@pytest.mark.parametrize("part", [".saved", EVERY_CALL])
@pytest.mark.parametrize(
    "old_bytes, new_bytes",
    [
        (9000, 1500),
        pytest.param(9000, 1e9, marks=pytest.mark.slow),
        pytest.param(1e9, 9000, marks=pytest.mark.slow),
    ],
)
def test_a_save_over_other_shards(tmp_path, first, second, monkeypatch, old_bytes, new_bytes, part, record_property):
    with monkeypatch.context() as patch:
        in_shards(patch, old_bytes)
        old = made(tmp_path / "one", first.save_to_preset)
    in_shards(monkeypatch, new_bytes)
    new = made(tmp_path / "two", second.save_to_preset)
    shards = [len([name for name in made if name.startswith("model-")]) for made in (old, new)]
    assert shards == [{9000: 2, 1500: 4, 1e9: 0}[size] for size in (old_bytes, new_bytes)]
    calls = killed_everywhere(tmp_path, old, new, second.save_to_preset, load_model, part)
    record_property("cases", calls)
    assert calls > 20


def with_adapter(base: GemmaCausalLM, is_reward: bool, seed: int | None = None):
    """A model of the base's sizes, with an adapter of rank `seed` and random values where one is given."""
    backbone = GemmaBackbone(base.config, seed=1)
    model = GemmaRewardModel(backbone, seed=1) if is_reward else GemmaCausalLM(backbone)
    if seed is not None:
        model.enable_lora(seed)
        values = np.random.default_rng(seed)
        for variable in adapter_variables(model).values():
            variable.assign(values.normal(size=variable.shape))
    return model


def adapter_variables(model) -> dict:
    """What an adapter's folder holds: both factors of each projection, and a reward model's head."""
    pairs = {name: one.adapter("default") for name, one in model.backbone.projections().items()}
    both = {f"{name}.{side}": getattr(pair, side) for name, pair in pairs.items() if pair for side in "ab"}
    return {**both, **({"score": model.score.kernel} if isinstance(model, GemmaRewardModel) else {})}


@pytest.mark.parametrize(
    "is_first, is_reward, part",
    [
        (False, True, ".saved"),
        *(pytest.param(*case, "", marks=pytest.mark.slow) for case in itertools.product((True, False), repeat=2)),
    ],
)
def test_a_save_of_an_adapter(tmp_path, first, is_first, is_reward, part, record_property):
    one, two = (with_adapter(first, is_reward, seed) for seed in (2, 3))
    old = {} if is_first else made(tmp_path / "one", one.save_adapter)
    new = made(tmp_path / "two", two.save_adapter)

    def load(folder):
        model = with_adapter(first, is_reward)
        model.load_adapter(folder)
        return {name: to_host(variable.value).tobytes() for name, variable in adapter_variables(model).items()}

    calls = killed_everywhere(tmp_path, old, new, two.save_adapter, load, part)
    record_property("cases", calls)
    assert calls > 10


def test_a_save_of_a_tokenizer(tmp_path, first, second, record_property):
    one, two = first.tokenizer, second.tokenizer
    old, new = made(tmp_path / "one", one.save), made(tmp_path / "two", two.save)
    old["added_tokens.json"] = b"{}"  # as transformers 4 writes it

    def load(folder):
        tokenizer = GemmaTokenizer.from_preset(folder)
        return tokenizer.model_proto, tokenizer.chat_template

    calls = killed_everywhere(tmp_path, old, new, two.save, load, ".saved")
    record_property("cases", calls)
    assert calls > 10


def test_whoever_finishes_a_save_may_be_killed_too(tmp_path, first, second, record_property):
    """Loading does so; a second load goes on where it stopped."""
    place = tmp_path / "tuned"
    for n in itertools.count():
        first.save_to_preset(place)
        assert not ends_by_itself(lambda: second.save_to_preset(place), 3, ".saved")
        assert (place / ".saved").is_dir()
        if ends_by_itself(lambda: load_model(place), n):
            break
        assert load_model(place) == digest(second), f"call {n}"
    record_property("cases", n)
    assert n > 15 and load_model(place) == digest(second)


@pytest.mark.parametrize("is_first", [pytest.param(True, marks=pytest.mark.slow), False])
def test_a_stage_in_place_of_an_older_one(tmp_path, is_first, record_property):
    """What the runner does with a finished stage: nothing of the older one stays."""
    old = {} if is_first else {"stage.json": b"old", "model/config.json": b"old", "samples.jsonl": b"old"}
    new = {"stage.json": b"new", "model/config.json": b"new", "metrics.jsonl": b"new"}
    for n in itertools.count():
        stages = tmp_path / str(n)
        put(stages / "one", old)
        put(stages / ".one.partial", new)
        place = lambda stages: place_folder(stages / ".one.partial", stages / "one", stale=("*",))  # noqa: E731
        if ends_by_itself(functools.partial(place, stages), n):
            break
        finish_save(stages / "one")
        is_done = not (stages / ".one.partial").exists()
        assert files(stages / "one") == (new if is_done else old), f"call {n}"
        assert [path.name for path in stages.iterdir() if path.name != ".one.partial"] == ["one"] * (
            is_done or bool(old)
        )
    record_property("cases", n)
    assert files(stages) == {f"one/{name}": data for name, data in new.items()} and n > (8 if is_first else 20)


def test_what_living_processes_write_stays(tmp_path, first):
    first.save_to_preset(tmp_path / "tuned")
    places = (tmp_path, tmp_path / "tuned")
    alive = [place / f".writing-{os.getppid()}-0" for place in places]
    dead = [place / f".writing-{process}-0" for place in places for process in (dead_process(), os.getpid())]
    for folder in alive + dead:
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"half")
    first.save_to_preset(tmp_path / "tuned")
    assert [folder.is_dir() for folder in alive + dead] == [True] * 2 + [False] * 4
    assert load_model(tmp_path / "tuned") == digest(first)


def dead_process() -> int:
    process = os.fork()
    if process == 0:
        os._exit(0)
    os.waitpid(process, 0)
    return process


def test_a_killed_save_of_one_file_leaves_nothing_after_the_next(tmp_path, first):
    model = with_adapter(first, is_reward=False, seed=2)
    file = tmp_path / "one.safetensors"
    assert not ends_by_itself(lambda: model.backbone.save_lora_weights(file), 2)
    assert [path.suffix for path in tmp_path.iterdir()] == [".partial"]
    other = tmp_path / f".one.safetensors.{os.getppid()}.partial"
    other.write_bytes(b"half")
    model.backbone.save_lora_weights(file)
    assert set(tmp_path.iterdir()) == {file, other}


def test_two_saves_at_once_leave_one_of_both(tmp_path, first, second):
    for _ in range(10):
        processes = []
        for model in (first, second):
            processes.append(os.fork())
            if processes[-1] == 0:
                code = 1
                try:
                    model.save_to_preset(tmp_path / "tuned")
                    code = 0
                finally:
                    os._exit(code)
        assert [os.waitpid(process, 0)[1] for process in processes] == [0, 0]
        assert load_model(tmp_path / "tuned") in (digest(first), digest(second))
        assert [path.name for path in tmp_path.iterdir()] == ["tuned"]


def test_a_save_over_a_preset_of_keras_hub_is_what_is_loaded(tmp_path, first):
    put(tmp_path, {"config.json": b"{}", "model.weights.h5": b"old", "assets/tokenizer/vocabulary.spm": b"old", **MINE})
    first.save_to_preset(tmp_path)
    assert load_model(tmp_path) == digest(first)
    assert GemmaTokenizer.from_preset(tmp_path).model_proto == first.tokenizer.model_proto
    assert files(tmp_path).keys() >= MINE.keys()


def test_a_reader_that_may_not_write_is_told(tmp_path, first, second, monkeypatch):
    first.save_to_preset(tmp_path / "tuned")
    assert not ends_by_itself(lambda: second.save_to_preset(tmp_path / "tuned"), 5, ".saved")

    def refused(*arguments, **options):
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", refused)
        with pytest.raises(CheckpointError, match="a save was interrupted.*Permission denied.*as a user who may write"):
            load_model(tmp_path / "tuned")
    assert load_model(tmp_path / "tuned") == digest(second)
