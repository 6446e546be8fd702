"""Rows that give away somebody's data, or the rows without these.

The kinds, and what of them can be told by a pattern, stand in `measures/personal_data.py`.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from pydantic import Field

from gemma_keras.install_advice import install_command
from pipelines.data.canonical import Piece
from pipelines.host.spelling import did_you_mean
from pipelines.measures.personal_data import (
    KINDS,
    SENSITIVE,
    find_personal_data,
    highest_severity,
    missing_packages,
    redacted,
    unknown_regions,
)
from pipelines.schema.base import Problem
from pipelines.schema.named import Named
from pipelines.stages.data_filtering.filters.base import KEEP, Filter, Verdict


class PersonalDataOptions(Named):
    """What stands beside the name in `{name: personal_data, ...}`."""

    action: Literal["drop", "redact"] = Field("drop", description="redact: `[EMAIL]` in place of it, the row stays.")
    severities: list[Literal["sensitive", "personal"]] = Field(
        ["sensitive", "personal"],
        min_length=1,
        description="sensitive: cards, accounts, national numbers, keys; personal: e-mail, phone, address.",
    )
    leave: list[str] = Field([], description="Kinds that are not looked for, such as street_address.")
    regions: list[str] = Field(
        ["US"], description="Countries (two letters) that a phone number without a country's code may be of."
    )

    @property
    def kinds(self) -> tuple[str, ...]:
        """Those that are looked for."""
        of = {kind: "sensitive" if kind in SENSITIVE else "personal" for kind in KINDS if kind not in self.leave}
        return tuple(kind for kind, severity in of.items() if severity in self.severities)

    def problems(self) -> Iterator[Problem]:
        """Kinds and countries that there are not, or packages."""
        for place, kind in enumerate(self.leave):
            if kind not in KINDS:
                known = ", ".join(KINDS)
                yield ("leave", place), f"no kind {kind!r}.{did_you_mean(kind, KINDS)} Kinds: {known}"
        if missing_packages():
            missing = " and ".join(missing_packages())
            yield ("name",), f"personal_data needs {missing}, which is not installed: {install_command('filters')}"
            return
        for place, region in enumerate(self.regions):
            if region in unknown_regions(self.regions):
                yield ("regions", place), f"no country {region!r}; expected two capital letters of ISO 3166, such as US"


class PersonalData(Filter):
    """`filters: [personal_data]`."""

    name = "personal_data"
    summary = "personal data, dropped or redacted"
    Options = PersonalDataOptions
    shows_rows = False
    options: PersonalDataOptions

    def __init__(self, options: Any, use: Any) -> None:
        """See `Filter`."""
        super().__init__(options, use)
        self._found: Counter[str] = Counter()

    def judge(self, pieces: Sequence[Piece]) -> Verdict:
        """All texts are looked at: what stands in a prompt is learned by heart too."""
        kinds = self.options.kinds
        found = [find_personal_data(piece.text, self.options.regions, kinds) for piece in pieces]
        if not any(found):
            return KEEP
        counts = dict(Counter(one.kind for of_piece in found for one in of_piece))
        if self.options.action == "redact":
            changes = {
                index: redacted(piece.text, of_piece)
                for index, (piece, of_piece) in enumerate(zip(pieces, found, strict=True))
                if of_piece
            }
            return Verdict(changes=changes, notes=counts)
        severity = highest_severity([one for of_piece in found for one in of_piece])
        return Verdict(str(severity), ", ".join(counts), notes=counts)

    def add(self, verdict: Verdict) -> None:
        """See `Filter.add`."""
        self._found.update(verdict.notes)

    def figures(self) -> dict[str, Any]:
        """`found`: kind → pieces of it."""
        return {"found": {kind: self._found[kind] for kind in KINDS if self._found[kind]}}
