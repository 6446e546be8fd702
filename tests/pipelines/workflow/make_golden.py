"""The resolved form of every shipped workflow, kept beside this file: what a changed default moves.

python tests/pipelines/workflow/make_golden.py        # writes golden/<name>.yaml anew
"""

import os
import pathlib
import tempfile

from pipelines.host.paths import shipped_workflows
from pipelines.workflow import yaml_reader
from pipelines.workflow.loading import load

GOLDEN = pathlib.Path(__file__).with_name("golden")
# What the workflows name that another run leaves behind; here stand-ins that a check takes for models.
LEFT_BEHIND = ("sft", "reward", "policy", "control")


def resolved(workflow: pathlib.Path) -> str:
    """The workflow as the run folder gets it, with this machine's folders replaced by a word."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name).resolve()
        for stage in LEFT_BEHIND:
            model = folder / "runs/quickstart/stages" / stage / "model"
            model.mkdir(parents=True)
            (model / "config.json").write_text("{}")
        pairs = folder / "runs/quickstart/stages/preferences"
        pairs.mkdir()
        (pairs / "preferences.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
        before = pathlib.Path.cwd()
        os.chdir(folder)
        try:
            loaded = load(workflow, backend="jax")
        finally:
            os.chdir(before)
        return yaml_reader.dump(loaded.as_data()).replace(str(folder), "FOLDER")


def main() -> None:
    """Write the files."""
    GOLDEN.mkdir(exist_ok=True)
    for file in GOLDEN.glob("*.yaml"):
        file.unlink()
    for name, workflow in shipped_workflows().items():
        (GOLDEN / f"{name}.yaml").write_text(resolved(workflow), encoding="utf-8")


if __name__ == "__main__":
    main()
