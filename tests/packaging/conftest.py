"""Fresh environments for the packaging tests: a virtual environment that sees chosen distributions of the present one,
and no other."""

import dataclasses
import importlib.metadata
import os
import pathlib
import subprocess
import sys
import tomllib

import pytest
from packaging.requirements import Requirement

# What a shell needs; everything else (KERAS_BACKEND, PYTHONPATH, cache folders) must not leak into a fresh environment.
_KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "TMPDIR", "OMP_NUM_THREADS")


@dataclasses.dataclass(frozen=True)
class FreshEnvironment:
    """A virtual environment with a home folder of its own."""

    python: pathlib.Path
    home: pathlib.Path

    def run(self, *command, cwd=None, timeout=120, **variables) -> subprocess.CompletedProcess:
        """Runs a command with only `_KEPT_VARIABLES`, HOME and `variables` set; the first word may name a script of the
        environment."""
        script = self.python.parent / command[0]
        first = script if script.exists() else command[0]
        environ = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        environ |= {"HOME": str(self.home), "TF_CPP_MIN_LOG_LEVEL": "2", "JAX_PLATFORMS": "cpu", **variables}
        return subprocess.run(
            [first, *command[1:]],
            cwd=cwd or self.home,
            env=environ,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )


def _with_requirements(names: list[str]) -> set[str]:
    """The named distributions and everything that they require here, extras left out unless written as name[extra]."""
    found: set[tuple[str, str]] = set()
    waiting = [Requirement(name) for name in names]
    while waiting:
        requirement = waiting.pop()
        for extra in ("", *requirement.extras):
            if (requirement.name.lower(), extra) in found:
                continue
            found.add((requirement.name.lower(), extra))
            for line in importlib.metadata.requires(requirement.name) or []:
                needed = Requirement(line)
                if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                    waiting.append(needed)
    return {name for name, _ in found}


def _link_distributions(names: set[str], folder: pathlib.Path) -> None:
    """Links the top-level files and folders of the distributions into `folder`."""
    for name in sorted(names):
        distribution = importlib.metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or [] if file.parts[0] not in ("..", "__pycache__")}:
            source, link = pathlib.Path(str(distribution.locate_file(top))), folder / top
            if source.exists() and not link.exists():
                link.symlink_to(source)


@pytest.fixture(scope="session")
def project_table(repository) -> dict:
    """The `[project]` table of pyproject.toml."""
    return tomllib.loads((repository / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="session")
def make_environment(project_table, tmp_path_factory):
    """`make_environment("jax")` → a new environment that holds what `pip install gemma-keras[jax]` would, less
    gemma-keras itself."""

    def make(*extras: str) -> FreshEnvironment:
        root = tmp_path_factory.mktemp("environment")
        home, links = root / "home", root / "links"
        home.mkdir()
        links.mkdir()
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", root / "venv"], check=True)
        wanted = project_table["dependencies"] + [
            line for extra in extras for line in project_table["optional-dependencies"][extra]
        ]
        _link_distributions(_with_requirements(wanted), links)
        python = root / "venv" / "bin" / "python"
        packages = subprocess.run(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        (pathlib.Path(packages) / "linked.pth").write_text(f"{links}\n")
        return FreshEnvironment(python=python, home=home)

    return make
