"""What benchmarks need of a device's memory: one model at a time, and a forward pass of a batch."""

from pipelines.memory.sampling import scoring
from pipelines.memory.usage import Sized, Usage, largest
from pipelines.memory.weights import frozen_bytes
from pipelines.stages.benchmark.config import Benchmarks

_WIDTH = 512  # of rows; what a batch takes hardly depends on it


def needs(config: Benchmarks, sized: Sized) -> list[Usage]:
    """Its one moment, that of the model that takes most."""
    found, scorer = [], config.toxicity and config.toxicity.classifier
    frozen = frozen_bytes(sized.config_of(scorer), config.dtype) if scorer else 0.0
    for name in config.models:
        model = sized.config_of(name)
        weights = frozen_bytes(model, config.dtype)
        rows = max(1, config.batch_tokens // _WIDTH)
        width = min(_WIDTH, config.batch_tokens)
        standing = Usage("reading questions", weights=weights, frozen=frozen)
        found.append(scoring(standing, model, sized.backend, config.dtype, rows, width, 0))
    return [largest(found)]
