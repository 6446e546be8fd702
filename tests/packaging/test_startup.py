"""What `--help`, `list`, `plan` and `import gemma_keras` load; benchmarks/startup.py has what it costs."""

import pytest

from benchmarks import startup

pytestmark = pytest.mark.no_backend

HEAVY = {
    "keras", "jax", "jaxlib", "torch", "tensorflow", "datasets", "matplotlib", "pandas", "pyarrow", "transformers",
    "keras_hub", "scipy",
}  # fmt: skip


@pytest.mark.parametrize("name", startup.LIGHT)
def test_a_light_start_loads_nothing_heavy(name, tmp_path):
    found = startup.start(*startup.LIGHT[name], folder=tmp_path)
    assert HEAVY & {module.partition(".")[0] for module in found.modules} == set()
    assert "gemma_keras" in found.modules
    assert (name == "import gemma_keras") == ("pipelines.cli" not in found.modules)


def test_a_heavy_module_would_be_seen(tmp_path):
    """The test of the test above; at the end of the process, so late imports too."""
    (tmp_path / "pandas.py").write_text("")
    program = "import sys; sys.path.insert(0, ''); import gemma_keras\ndef late():\n    import pandas\nlate()"
    assert "pandas" in startup.start(program, folder=tmp_path).modules


def test_a_failing_start_is_no_figure(tmp_path):
    with pytest.raises(RuntimeError, match="no shipped workflow 'nothing'"):
        startup.start(startup.LIGHT["gemma-keras list"][0], "copy", "nothing", folder=tmp_path)


def test_the_table_is_written_and_read_back(monkeypatch, tmp_path, capsys):
    page = tmp_path / "README.md"
    page.write_text(f"before\n{startup.BEGIN}\nold\n{startup.END}\nafter\n")
    monkeypatch.setattr(startup, "PAGE", page)
    figures = {"gemma-keras list": (0.5, 40.0), "import gemma_keras": (0.25, 30.0)}
    monkeypatch.setattr(startup, "measure", lambda samples: figures)
    assert startup.main([]) == 0
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert "| `gemma-keras list` | 0.50 | 40 |" in text
    assert startup.read(text) == figures
    assert startup.main(["--check"]) == 0
    figures["import gemma_keras"] = (0.32, 30.0)
    assert startup.main(["--check"]) == 1
    assert "import gemma_keras: 0.32 CPU s, 0.25 in the table" in capsys.readouterr().out


def test_the_program_measures_processor_time(tmp_path):
    busy = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
    found = startup.start(busy, folder=tmp_path)
    assert 0.3 <= found.seconds < 5 and 5 < found.memory_mb < 500
    asleep = startup.start("import time; time.sleep(0.3)", folder=tmp_path)
    assert asleep.seconds < found.seconds
