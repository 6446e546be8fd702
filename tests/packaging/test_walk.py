"""A stranger's first hour, from the wheel in a fresh environment: every message as it was read, in `walk/`.

`GEMMA_KERAS_WRITE_GOLDEN=1 python -m pytest tests/packaging/test_walk.py` writes the files anew; look at what changed.
"""

import dataclasses
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest
from fresh_environment import FreshEnvironment
from terminal import Terminal

pytestmark = [pytest.mark.no_backend, pytest.mark.slow, pytest.mark.timeout(1200)]

GOLDEN = pathlib.Path(__file__).parent / "walk"
WRITE = "GEMMA_KERAS_WRITE_GOLDEN"
STEPS = (
    "1_copy", "2_validate_with_a_mistake", "3_validate", "4_show", "5_run_until_ctrl_c", "6_run_again",
    "7_run_finished", "8_convert", "9_chat",
)  # fmt: skip

MODEL = """\
from gemma_keras import GemmaBackbone, GemmaCausalLM, GemmaConfig, GemmaTokenizer
texts = [f"What is {number}? It is blue." for number in range(60)]
tokenizer = GemmaTokenizer.train(texts, 300, "gemma")
config = GemmaConfig(vocabulary_size=300, num_layers=1, num_query_heads=2, num_key_value_heads=1, head_dim=16,
                     hidden_dim=32, intermediate_dim=64, context_length=256)
GemmaCausalLM(GemmaBackbone(config, seed=3), tokenizer).save_to_preset("tiny")
"""
WORKFLOW = """\
# A stranger's own.
name: mine
seed: 17
backend: jax
model: tiny
stages:
  first:
    kind: instruction_tuning
    data: {path: rows.jsonl, prompt: question, completion: answer}
    batch_size: 8
    learning_rate: 1e-2
  second:
    kind: instruction_tuning
    from: first
    data: {path: rows.jsonl, prompt: question, completion: answer}
    batch_size: 8
    learning_rate: 1e-2
    epochs: 40
"""
# An endless second stage is one that Ctrl-C surely finds at work; it then goes on with the file as it stands.
ENDLESS = ("--set", "stages.second.epochs=100000")


@dataclasses.dataclass
class Walk:
    """The stranger's desk and what was seen there: step → transcript."""

    stranger: FreshEnvironment
    desk: pathlib.Path
    seen: dict[str, str] = dataclasses.field(default_factory=dict)

    def normalized(self, text: str) -> str:
        """Without what differs from machine to machine and from run to run."""
        places = {
            str(self.desk): "DESK", str(self.stranger.home): "HOME", str(self.stranger.python.parent.parent): "ENV",
        }  # fmt: skip
        for place, name in places.items():
            text = text.replace(place, name)
        lines = [line.rstrip() for line in text.splitlines() if not re.search(r"\d+:\d\d left", line)]
        text = "\n".join(lines) + "\n"
        for pattern, name in (
            (r"(?<![\w:.])\d+:\d\d(:\d\d)?\b", "M:SS"),  # a place in a file has a colon before it
            (r"[\d.,]+(e[+-]\d+)?(?= \w+/s\b)", "#"),
            (r"\bprocess \d+", "process #"),
            (r"-?\b\d+\.\d+(e[+-]\d+)?\b", "#"),
        ):
            text = re.sub(pattern, name, text)
        return text

    def keep(self, step: str, command: tuple[str, ...], output: str, code: int) -> None:
        """Note a step."""
        self.seen[step] = self.normalized(f"$ gemma-keras {' '.join(command)}\n{output}") + f"[exit code {code}]\n"

    def do(self, step: str, *command: str) -> None:
        """Run a command to its end; standard output, then standard error."""
        done = self.stranger.run("gemma-keras", *command, cwd=self.desk, timeout=600)
        self.keep(step, command, done.stdout + done.stderr, done.returncode)

    def run_until_ctrl_c(self, step: str, *command: str, sign: pathlib.Path) -> None:
        """Run a command and interrupt it when the file `sign` is there with something in it."""
        process = subprocess.Popen(
            self.stranger.command("gemma-keras", *command), cwd=self.desk, env=self.stranger.environ(),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        try:
            give_up = time.monotonic() + 300
            while process.poll() is None and not (sign.is_file() and sign.stat().st_size):
                assert time.monotonic() < give_up, f"{sign} did not appear"
                time.sleep(0.05)
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the whole foreground group
            output, error = process.communicate(timeout=60)
        finally:
            process.kill()
        self.keep(step, command, output + error, process.returncode)

    def chat(self, step: str, *command: str, lines: tuple[str, ...]) -> None:
        """Talk through a terminal."""
        terminal = Terminal(self.stranger.command("gemma-keras", *command), self.desk, self.stranger.environ())
        try:
            for line in lines:
                terminal.read_until("> ")
                terminal.type(line)
                terminal.read_until(f"{line}\n")
            code = terminal.end()
        finally:
            terminal.process.kill()
        self.keep(step, command, terminal.screen, code)


@pytest.fixture(scope="module")
def stranger(wheel, repository, tmp_path_factory) -> FreshEnvironment:
    """A fresh environment with the wheel and JAX, installed from a package index as a stranger would."""
    root = tmp_path_factory.mktemp("stranger")
    (root / "home").mkdir()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", root / "venv"], check=True)
    python = root / "venv" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "--quiet"]
    reached = subprocess.run(
        [*pip, "download", "--no-deps", "--retries", "0", "--timeout", "15", "--dest", root / "probe", "filelock"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if reached.returncode:
        pytest.skip(f"no package index: {reached.stderr.strip().splitlines()[-1]}")
    command = [*pip, "install", "--constraint", repository / "constraints.txt", f"{wheel}[jax,gguf]"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return FreshEnvironment(python=python, home=root / "home")


@pytest.fixture(scope="module")
def walk(stranger, tmp_path_factory) -> Walk:
    """The whole walk, once."""
    desk = tmp_path_factory.mktemp("desk")
    walk = Walk(stranger, desk)
    done = stranger.run("python", "-c", MODEL, cwd=desk)
    assert done.returncode == 0, done.stderr
    walk.do("1_copy", "copy", "quickstart")
    rows = [{"question": f"What is {number}?", "answer": "It is blue."} for number in range(48)]
    (desk / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    mistaken = WORKFLOW.replace("learning_rate", "learning_rte", 1).replace("from: first", "from: frist")
    (desk / "mine.yaml").write_text(mistaken)
    walk.do("2_validate_with_a_mistake", "validate", "mine.yaml")
    (desk / "mine.yaml").write_text(WORKFLOW)
    walk.do("3_validate", "validate", "mine.yaml")
    walk.do("4_show", "show", "mine.yaml", "first", "--rows", "2")
    sign = desk / "runs" / "mine" / "stages" / ".second.partial" / "metrics.jsonl"
    walk.run_until_ctrl_c("5_run_until_ctrl_c", "run", "mine.yaml", *ENDLESS, sign=sign)
    walk.do("6_run_again", "run", "mine.yaml")
    walk.do("7_run_finished", "run", "mine.yaml")
    walk.do("8_convert", "convert", "runs/mine/stages/second", "mine.gguf", "--dtype", "float16")
    talk = ("chat", "mine.gguf", "--temperature", "0", "--max-new-tokens", "8")
    walk.chat("9_chat", *talk, lines=("What is 7?", "/new", "What is 8?", ""))
    return walk


@pytest.mark.parametrize("step", STEPS)
def test_every_message_is_the_one_that_was_read(walk, step):
    golden = GOLDEN / f"{step}.txt"
    if os.environ.get(WRITE):
        golden.write_text(walk.seen[step])
    assert golden.is_file(), f"{golden} is missing; write it with {WRITE}=1 and read it"
    assert walk.seen[step] == golden.read_text(), f"read the difference; {WRITE}=1 takes it over"


def test_the_second_run_goes_on_where_the_first_was_stopped(walk):
    """And what came of it speaks as it was taught, through every format that it went."""
    assert "first (instruction_tuning): finished before, skipped" in walk.seen["6_run_again"]
    assert walk.seen["5_run_until_ctrl_c"].endswith("[exit code 130]\n")
    assert walk.seen["9_chat"].count("It is blue.") == 2
    assert all("Traceback" not in text for text in walk.seen.values())
