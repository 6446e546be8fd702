"""The benchmark measures what it says: in turns, steps, what fits; and a library that fails stops no other."""

import dataclasses
import json
import textwrap

import pytest

from benchmarks import case as cases_module
from benchmarks import measuring, peak, processes, real_model, run, table
from benchmarks.case import Case, tiny
from benchmarks.cases import CASES, case_named
from benchmarks.measuring import measure

pytestmark = pytest.mark.no_backend


def quiet(line):
    pass


@pytest.fixture
def fake_engines(tmp_path, monkeypatch):
    """A `benchmarks.worker` that logs each sample to a file instead of running a library; `transformers` dies at its
    second sample, `keras_hub` holds 200 MB with a case that limits memory."""
    package = tmp_path / "benchmarks"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "worker.py").write_text(
        textwrap.dedent("""
        import argparse, json, os, sys, time
        parser = argparse.ArgumentParser()
        for name in ("--library", "--case"):
            parser.add_argument(name)
        parser.add_argument("--answers", type=int)
        parser.add_argument("--tiny", action="store_true")
        arguments = parser.parse_args()
        answers = os.fdopen(arguments.answers, "w", buffering=1)
        answers.write(json.dumps({"event": "ready", "parameters": 7, "memory_gib": 0.5}) + "\\n")
        cache = os.environ.get("GEMMA_KERAS_CACHE")
        filled = cache and os.path.exists(cache + "/filled")
        for number, word in enumerate(iter(sys.stdin.readline, "")):
            if arguments.library == "transformers" and number == 1:
                print("Traceback of the library")
                sys.exit("ValueError: out of cheese")
            if arguments.library == "keras_hub" and arguments.case.startswith("context"):
                held = bytearray(os.urandom(1 << 20) * 200)
                time.sleep(60)
            with open("turns.txt", "a") as file:
                file.write(arguments.library + " " + os.environ["MALLOC_MMAP_MAX_"] + "\\n")
            if cache:
                open(cache + "/filled", "w").close()
            answers.write(json.dumps({
                "event": "sample", "seconds": [float(number), number + 0.5, number / 100],
                "until_first": 1.0 if filled else 10.0, "memory_gib": 1.0 + number,
            }) + "\\n")
        """)
    )
    monkeypatch.setattr(processes, "ROOT", tmp_path)
    return tmp_path


def test_libraries_are_asked_in_turns_and_a_failing_one_is_reported(fake_engines):
    ours, keras_hub, transformers = measure(case_named("train"), "torch", samples=3, timeout=20, say=quiet)
    turns = (fake_engines / "turns.txt").read_text().split()
    assert turns[::2] == ["ours", "keras_hub", "transformers", *["ours", "keras_hub"] * 3]
    assert set(turns[1::2]) == {"0"}, "the allocator of our stages, for all"
    assert ours.first_call == 10.0
    assert ours.seconds == [1.0, 1.5, 0.01, 2.0, 2.5, 0.02, 3.0, 3.5, 0.03]
    assert ours.best == 0.01 and ours.quartiles == (0.03, 1.5, 2.5)
    assert ours.memory_gib == 4.0 and ours.parameters == 7 and ours.error is None
    assert keras_hub.seconds == ours.seconds
    assert transformers.error == "ended with status 1: ValueError: out of cheese" and not transformers.does_not_fit


def test_the_last_smaller_batch_is_a_measurement_of_its_own(fake_engines):
    found = measure(case_named("train_lora_odd"), "jax", samples=2, timeout=20, say=quiet)
    assert [(item.library, item.part, item.seconds) for item in found] == [
        ("ours", "", [1.0, 1.5, 2.0, 2.5]),
        ("keras_hub", "", [1.0, 1.5, 2.0, 2.5]),
        ("ours", "last, smaller batch", [0.01, 0.02]),
        ("keras_hub", "last, smaller batch", [0.01, 0.02]),
    ]


def test_what_does_not_fit_is_ended_and_said(fake_engines, monkeypatch):
    small = dataclasses.replace(case_named("context_8192"), memory_limit_gib=0.1)
    ours, keras_hub = measure(small, "jax", samples=5, timeout=20, say=quiet)
    # One after the other, and no more samples than the case allows.
    assert (fake_engines / "turns.txt").read_text().split()[::2] == ["ours", "ours"]
    assert ours.error is None and len(ours.seconds) == 3
    assert keras_hub.does_not_fit and keras_hub.error == "does not fit into 0.1 GiB"


def test_first_calls_are_those_of_new_processes_with_an_empty_and_a_filled_cache(fake_engines):
    found = measure(case_named("first_call"), "jax", samples=5, timeout=20, say=quiet)
    assert [(item.library, item.part, item.seconds) for item in found] == [
        ("ours", "empty cache", [10.0]),
        ("ours", "filled cache", [1.0]),
        ("keras_hub", "empty cache", [10.0]),
        ("keras_hub", "filled cache", [1.0]),
    ]


def test_a_library_that_hangs_is_given_up(fake_engines):
    (fake_engines / "benchmarks" / "worker.py").write_text("import time; print('building', flush=True); time.sleep(60)")
    results = measure(case_named("generate_1"), "jax", samples=1, timeout=0.5, say=quiet)
    assert [item.error for item in results] == ["no answer within 0 s: building"] * 2


def test_optional_libraries_are_left_out_where_they_are_absent(fake_engines, monkeypatch):
    case = dataclasses.replace(case_named("generate_1"), libraries={"torch": ("ours", "llama_cpp")})
    for is_here, expected in ((False, ["ours"]), (True, ["ours", "llama_cpp"])):
        monkeypatch.setattr(measuring.importlib.util, "find_spec", lambda name, found=is_here: found or None)
        assert [item.library for item in measure(case, "torch", 1, timeout=20, say=quiet)] == expected


def test_sizes_are_those_of_the_published_comparison():
    sizes = {case.name: case for case in CASES}
    assert len(sizes) == len(CASES)
    size = sizes["train"].size
    attention = 2 * size.hidden_dim * size.head_dim * (size.num_query_heads + size.num_key_value_heads)
    weights = size.vocabulary_size * size.hidden_dim + size.num_layers * (
        attention + 3 * size.hidden_dim * size.intermediate_dim
    )
    assert round(weights / 1e6) == 34
    assert sizes["train"].tokens == 2048 and sizes["generate_16"].tokens == 2048 and sizes["reinforce"].tokens == 8192
    assert sizes["reward"].tokens == 4096 and sizes["update"].tokens == 0 and sizes["context_8192"].tokens == 8192
    assert sizes["train_large_vocabulary"].size.vocabulary_size == 256_000
    for case in CASES:
        for backend, libraries in case.libraries.items():
            assert backend in cases_module.BACKENDS and libraries[0].startswith("ours")


def test_a_variant_changes_its_field_alone():
    case = Case("x", "train", "x", {}, dtype="mixed_bfloat16")
    assert case.of("ours@float32") == dataclasses.replace(case, dtype="float32")
    assert case.of("keras_hub@graph") == dataclasses.replace(case, xla=False)
    assert case.of("ours") == case


def test_unknown_case_is_an_error(capsys):
    assert run.main(["--only", "trian", "--tiny"]) == 2
    assert "fits nothing" in capsys.readouterr().err


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """`run.main` without workers: what it measures is listed."""
    (tmp_path / "README.md").write_text(f"{table.BEGIN}\n{table.END}\n")
    asked = []

    def fake(case, backend, samples, *options):
        asked.append((case.name, backend, samples))
        return [measuring.Measurement(case.name, backend, "ours", seconds=[1.0], memory_gib=1.0)]

    monkeypatch.setattr(run, "measure", fake)
    monkeypatch.setattr(
        run.peak, "measure", lambda names, tiny: {each: {"float32": 9, "bfloat16": 9, "read": 9} for each in names}
    )
    monkeypatch.setattr(run, "_revision", lambda: "abc")
    return asked, tmp_path


def test_a_run_goes_on_where_it_stopped(recorded, monkeypatch):
    asked, folder = recorded
    command = ["--folder", str(folder), "--only", "generate_1", "update", "--resume"]
    assert run.main([*command[:2], "--only", "generate_1:jax"]) == 0
    assert run.main(command) == 0
    assert asked[0] == ("generate_1", "jax", run.SAMPLES)
    assert sorted(asked[1:]) == [
        *[(name, backend, run.SAMPLES) for name, backend in (("generate_1", "tensorflow"), ("generate_1", "torch"))],
        *[("update", backend, run.SAMPLES) for backend in cases_module.BACKENDS],
    ]
    (file,) = (folder / "results").iterdir()
    stored = json.loads(file.read_text())
    assert len(stored["runs"]) == 6 and sorted(stored["machine"]["peak"]) == list(cases_module.BACKENDS)
    assert "| torch | gemma_keras | 1 |" in (folder / "README.md").read_text()
    monkeypatch.setattr(run, "_revision", lambda: "another")
    assert run.main(command) == 0 and len(asked) == 12


def test_quick_is_a_part_and_is_printed(recorded, capsys):
    asked, folder = recorded
    assert run.main(["--quick", "--folder", str(folder)]) == 0
    assert {name for name, _, _ in asked} == {"train", "update", "generate_16"}
    assert {samples for _, _, samples in asked} == {run.QUICK_SAMPLES}
    assert "### Training step, 34M parameters" in capsys.readouterr().out
    assert not (folder / "results").exists()


def test_what_needs_absent_weights_is_left_out_with_a_line(recorded, capsys, monkeypatch):
    asked, folder = recorded
    monkeypatch.setattr(real_model, "CACHE", folder)
    assert run.main(["--folder", str(folder), "--only", "gemma_3_270m_decode_16", "update:jax"]) == 0
    assert [name for name, _, _ in asked] == ["update"]
    assert "gemma_3_270m_decode_16: left out, no weights" in capsys.readouterr().err


def test_a_real_run_of_ours_writes_results_and_table():
    """The smallest case through real processes, ours only."""
    case = dataclasses.replace(tiny(case_named("update")), libraries={"torch": ("ours",)})
    (result,) = measure(case, "torch", samples=2, tiny=True, timeout=200, say=quiet)
    assert result.error is None
    assert len(result.seconds) == 2 * case.steps and min(result.seconds) > 0
    assert 0.1 < result.memory_gib < 8
    results = table.merge({"runs": [], "machine": {}}, [result], run.machine())
    assert json.loads(json.dumps(results)) == results
    assert "| torch | gemma_keras |" in table.render([results])


def test_the_peak_is_plausible():
    (found,) = peak.measure(["torch"], tiny=True).values()
    assert set(found) == {"float32", "bfloat16", "read"} and all(0.1 < value < 1e6 for value in found.values())


@pytest.mark.parametrize(
    ("flags", "name"), [("sse avx512_bf16", "Abacus 7"), ("sse amx_bf16 amx_tile", "Abacus 7 with AMX")]
)
def test_a_processor_that_multiplies_bfloat16_in_tiles_is_another_one(tmp_path, flags, name):
    cpuinfo = tmp_path / "cpuinfo"
    one = f"processor\t: {{}}\nmodel name\t: Abacus 7\nflags\t\t: {flags}\n\n"
    cpuinfo.write_text(one.format(0) + one.format(1))
    assert run._processor(cpuinfo) == name
