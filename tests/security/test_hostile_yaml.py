"""Hostile and broken workflow files: each is refused with exit code 2 and a place, quickly, and nothing is executed."""

import time

import pytest

from pipelines import cli

pytestmark = [pytest.mark.no_backend, pytest.mark.fault("hostile files and settings")]

DATA = "{{task: small_world, split: sft, size: 9}}"
STAGE = f"stages:\n  sft:\n    kind: instruction_tuning\n    from: {{base}}\n    data: {DATA}\n"
HEAD = "name: x\n" + STAGE
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
)

# text of the file → line:column and a part of the message
CASES = {
    "object_apply": ("name: !!python/object/apply:os.system ['touch {canary}']\n" + STAGE, "1:7", "plain data"),
    "object_new": ("name: !!python/object/new:os._exit [0]\n" + STAGE, "1:7", "plain data"),
    "python_name": ("name: !!python/name:os.system\n" + STAGE, "1:7", "plain data"),
    "python_module": ("name: !!python/module:antigravity\n" + STAGE, "1:7", "plain data"),
    "local_tag": ("name: !include /etc/passwd\n" + STAGE, "1:7", "plain data"),
    "string_tag": ("name: !!str x\n" + STAGE, "1:7", "plain data"),
    "binary_tag": ("name: !!binary aGVsbG8=\n" + STAGE, "1:7", "plain data"),
    "tagged_key": ("!!python/name:os.system name: x\n" + STAGE, "1:1", "key"),
    "alias_bomb": (BOMB + HEAD, "4:", "more than 10000 values"),
    "alias_of_itself": ("name: &a [*a]\n" + STAGE, "1:11", "contains itself"),
    "alias_without_anchor": ("name: *nothing\n" + STAGE, "1:7", "no anchor"),
    "deep_nesting": ("name: " + "[" * 5000 + "]" * 5000 + "\n" + STAGE, "1:39", "levels of nesting"),
    "many_values": ("name: [" + "1," * 20000 + "1]\n" + STAGE, "1:", "more than 10000 values"),
    "huge_file": ("# " + "x" * 300_000 + "\n" + HEAD, "1:1", "at most 262144 bytes"),
    "long_number": ("name: x\nseed: " + "9" * 100_000 + "\n" + STAGE, "2:7", "more than 64 digits"),
    "seed_too_large": ("name: x\nseed: 99999999999999999999\n" + STAGE, "2:7", "less than"),
    "duplicate_key": ("name: x\nname: y\n" + STAGE, "2:1", "'name' occurs twice"),
    "duplicate_stage": (HEAD + "  sft: {{kind: evaluation}}\n", "7:3", "'sft' occurs twice"),
    "merge_key": ("<<: {{name: x}}\n" + STAGE, "1:1", "merge key"),
    "number_as_key": ("1: x\n" + HEAD, "1:1", "expected a text"),
    "list_as_key": ("? [a]\n: x\n" + HEAD, "1:3", "key"),
    "second_document": (HEAD + "---\nname: y\n", "7:1", "second document"),
    "unknown_key": ("sead: 1\n" + HEAD, "1:1", "Did you mean 'seed'?"),
    "unknown_kind": (
        "name: x\nstages: {{a: {{kind: instruction_tunning}}}}\n",
        "2:20",
        "Did you mean 'instruction_tuning'?",
    ),
    "dotted_kind": ("name: x\nstages: {{a: {{kind: os.system}}}}\n", "2:20", "unknown kind 'os.system'"),
    "path_as_name": ("name: ../../escape\n" + STAGE, "1:7", "letters, digits"),
    "path_as_stage": ("name: x\nstages:\n  ../../escape: {{kind: evaluation}}\n", "3:3", "no stage name"),
    "control_character": ("name: x\x07\n" + STAGE, "1:8", "U+0007 is not allowed"),
    "wrong_type": ("name: x\nseed: true\n" + STAGE, "2:7", "expected a whole number, got true"),
    "list_at_the_top": ("- name: x\n", "1:1", "expected a mapping"),
    "unclosed": ("name: [x\n" + STAGE, "2:", "no valid YAML"),
    "infinity": (HEAD + "    learning_rate: .inf\n", "7:20", "finite"),
    "not_a_number": (HEAD + "    learning_rate: .nan\n", "7:20", "finite"),
}


@pytest.fixture
def write(tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text("{}")

    def write(text):
        path = tmp_path / "w.yaml"
        path.write_text(
            text.replace("{base}", str(base))
            .replace("{canary}", str(tmp_path / "canary"))
            .replace("{{", "{")
            .replace("}}", "}")
        )
        return path

    return write


def test_the_frame_of_the_cases_is_valid(write, capsys):
    assert cli.main(["validate", str(write(HEAD))]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("command", ["validate", "run"])
def test_refused_with_its_place(case, command, write, tmp_path, capsys, monkeypatch):
    text, place, message = CASES[case]
    path = write(text)
    monkeypatch.chdir(tmp_path)
    started = time.process_time()  # of this process alone: a busy machine does not count
    assert cli.main([command, str(path)]) == 2
    assert time.process_time() - started < 5
    error = capsys.readouterr().err
    assert f"{path}:{place}" in error
    assert message in error
    assert "Traceback" not in error
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base", "w.yaml"], (
        "something was executed, or a run was begun"
    )
