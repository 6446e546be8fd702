"""What filters need of a device's memory: nothing, but for a reward model that scores toxicity, a text at a time."""

from pipelines.memory.sampling import scoring
from pipelines.memory.usage import Sized, Usage
from pipelines.memory.weights import frozen_bytes
from pipelines.schema.scoring import ToxicityModel
from pipelines.stages.data_filtering.config import DataFiltering

_DTYPE, _WIDTH = "float32", 1024


def needs(config: DataFiltering, sized: Sized) -> list[Usage]:
    """The moment at which a text is scored; none without a model."""
    found: list[Usage] = []
    for one in config.filters:
        if isinstance(one, ToxicityModel) and one.classifier is not None:
            model = sized.config_of(one.classifier)
            standing = Usage("scoring toxicity", frozen=frozen_bytes(model, _DTYPE))
            found.append(scoring(standing, model, sized.backend, _DTYPE, 1, _WIDTH, 0))
    return found
