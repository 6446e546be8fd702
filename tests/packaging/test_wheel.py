"""The wheel holds everything it needs and works in a fresh environment, away from the source tree."""

import subprocess
import sys
import zipfile

import pytest

pytestmark = pytest.mark.no_backend


@pytest.fixture(scope="module")
def installed(wheel, make_environment):
    """A fresh environment with the core dependencies, JAX and the wheel."""
    environment = make_environment("jax")
    command = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        environment.python,
        "install",
        "--no-deps",
        "--no-index",
        "--quiet",
        wheel,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return environment


def test_wheel_holds_every_module_workflow_and_data_file(wheel, repository):
    names = set(zipfile.ZipFile(wheel).namelist())
    sources = {
        str(path.relative_to(repository))
        for package in ("gemma_keras", "pipelines")
        for path in (repository / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    workflows = {f"pipelines/workflows/{path.name}" for path in (repository / "workflows").glob("*.yaml")}
    assert workflows, "no workflow is shipped"
    assert not (sources | workflows) - names
    assert "pipelines/workflows/workflow.schema.json" in names, "the file that their first lines name"
    pages = {f"pipelines/docs/algorithms/{path.name}" for path in (repository / "docs/algorithms").glob("*.md")}
    assert pages and pages <= names, "what `explain` prints"
    assert {"gemma_keras/py.typed", "pipelines/py.typed"} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_wheel_holds_nothing_else(wheel):
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"gemma_keras", "pipelines"}


def test_every_template_of_the_report_is_in_the_wheel(wheel, repository):
    """Those of the kinds too, which lie beside their code."""
    templates = {path.relative_to(repository).as_posix() for path in (repository / "pipelines").rglob("*.j2")}
    assert len(templates) >= 6 and templates <= set(zipfile.ZipFile(wheel).namelist())


def test_installed_package_is_the_wheels_and_typed(installed):
    done = installed.run(
        "python", "-c", "import gemma_keras, pipelines; print(gemma_keras.__file__); print(pipelines.__file__)"
    )
    assert done.returncode == 0, done.stderr
    root = str(installed.python.parent.parent)
    assert all(line.startswith(root) for line in done.stdout.split())


def test_list_copy_validate_from_another_folder(installed, repository, tmp_path):
    listed = installed.run("gemma-keras", "list", cwd=tmp_path)
    assert listed.returncode == 0, listed.stderr
    names = [path.stem for path in sorted((repository / "workflows").glob("*.yaml"))]
    assert not [name for name in names if name not in listed.stdout]
    for name in names:
        copied = installed.run("gemma-keras", "copy", name, cwd=tmp_path)
        assert copied.returncode == 0, copied.stderr
        assert (tmp_path / f"{name}.yaml").read_text() == (repository / "workflows" / f"{name}.yaml").read_text()
        validated = installed.run("gemma-keras", "validate", f"{name}.yaml", cwd=tmp_path)
        if "runs/quickstart/" in (tmp_path / f"{name}.yaml").read_text():
            # They start from the folders of a quickstart run, which are not here: they must say so.
            assert validated.returncode == 2
            assert "Run the workflow 'quickstart' first" in validated.stdout + validated.stderr
        elif "# Needs: pip install" in (tmp_path / f"{name}.yaml").read_text():
            assert validated.returncode == 2
            said = [line for line in (validated.stdout + validated.stderr).splitlines() if line.strip()]
            assert said and all("not installed: pip install" in line for line in said), said
        else:
            assert validated.returncode == 0, f"{name}: {validated.stdout}{validated.stderr}"


def test_validate_refuses_an_unknown_key_with_its_place(installed, tmp_path):
    installed.run("gemma-keras", "copy", "quickstart", cwd=tmp_path)
    path = tmp_path / "quickstart.yaml"
    text = path.read_text()
    path.write_text(text + "\nlearning_rte: 1\n")
    done = installed.run("gemma-keras", "validate", "quickstart.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert f"quickstart.yaml:{text.count(chr(10)) + 2}:" in done.stdout + done.stderr
    assert "learning_rte" in done.stdout + done.stderr
