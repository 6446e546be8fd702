"""What a filtering stage is asked for."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from pipelines.schema.base import Problem, StageConfig, Use
from pipelines.schema.data import Rows
from pipelines.schema.named import Named, one_of
from pipelines.schema.roles import KeyPath, Product
from pipelines.schema.scoring import ToxicityModel
from pipelines.stages.data_filtering.filters.decontaminate import DecontaminateOptions
from pipelines.stages.data_filtering.filters.registry import FILTERS, OPTIONS
from pipelines.tasks.benchmarks.choice import choose, places

if TYPE_CHECKING:
    FilterOptions = Named
else:
    FilterOptions = one_of(OPTIONS)


class DataFiltering(StageConfig):
    """Drops rows that a model should not learn from, and says why."""

    produces: ClassVar[Product] = "rows"
    packages = ("datasketch", "phonenumbers", "py3langid", "python-stdnum", "better_profanity")
    elsewhere = dict.fromkeys(("filter", "filtering", "clean", "dedup", "deduplication", "decontamination"), "")

    kind: Literal["data_filtering"]
    data: Rows = Field(description="Rows of a file, of the built-in task, or of a stage that left some.")
    use: Use = Field(description="What the rows are read as: text, instruction, prompt, preference.")
    filters: list[FilterOptions] = Field(
        min_length=1,
        description="In this order: "
        + "; ".join(f"{name}: {one.summary}" for name, one in FILTERS.items())
        + ". With options: {name: ...}.",
    )
    processes: int = Field(1, ge=1, description="That judge rows at a time; their number changes no byte.")

    def reads(self) -> tuple[Use, ...]:
        """As `use` says."""
        return (self.use,)

    def leaves(self) -> Use | None:
        """As they were read."""
        return self.use

    def parts_read(self, path: KeyPath) -> Sequence[str] | None:
        """The sets of the benchmarks that rows are compared with."""
        chosen = self.filters[int(path[1])] if path[0] == "filters" else None
        if not isinstance(chosen, DecontaminateOptions) or path[-1] != "data":
            return None
        known = [one.benchmark for one in choose(chosen.names) if one.benchmark is not None]
        return list(dict.fromkeys(place for one in known for place in places(one)))

    def problems(self) -> Iterator[Problem]:
        """A filter that is named twice, and a model in several processes."""
        names = [one.name for one in self.filters]
        for place, name in enumerate(names):
            if name in names[:place]:
                yield ("filters", place), f"{name} is named twice; expected each filter once, with all its options"
        has_model = any(isinstance(one, ToxicityModel) and one.has_model for one in self.filters)
        if has_model and self.processes > 1:
            message = f"{self.processes} processes would hold the model that scores toxicity as often; expected 1"
            yield ("processes",), message
