"""What happens to a bad row: strict stops with `file:line: reason`, lenient sets the row aside and counts."""

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pipelines.host.errors import DataError

SHOWN_CHARACTERS = 2000


class BadRow(Exception):
    """A row that cannot be used; the message is the reason, without the place."""


@dataclasses.dataclass
class Rejects:
    """The bad rows of one data source.

    Args:
        mode: "strict" raises at the first bad row, "lenient" collects.
        rows: what was set aside, {"origin", "reason", "row"} each.
        notices: what is worth saying of rows that were taken: text → the first row's origin.
    """

    mode: Literal["strict", "lenient"] = "strict"
    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    notices: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def count(self) -> int:
        """Rows set aside."""
        return len(self.rows)

    def reject(self, origin: str, reason: str, row: Any = None) -> None:
        """Sets a row aside.

        Raises:
            DataError: in strict mode, with `origin: reason`.
        """
        if self.mode == "strict":
            raise DataError(f"{origin}: {reason}")
        self.rows.append({"origin": origin, "reason": reason, "row": _shown(row)})

    @contextmanager
    def guard(self, origin: str, row: Any = None) -> Iterator[None]:
        """Turns a `BadRow` raised inside into a rejected row."""
        try:
            yield
        except BadRow as error:
            self.reject(origin, str(error), row)

    def write(self, folder: Path) -> None:
        """Writes `rejected.jsonl` into the folder, where there is anything to write."""
        if self.rows:
            text = "".join(json.dumps(row, ensure_ascii=True) + "\n" for row in self.rows)
            (folder / "rejected.jsonl").write_text(text, encoding="utf-8")


def _shown(row: Any) -> Any:
    if row is None:
        return None
    if isinstance(row, bytes):
        row = row.decode("utf-8", errors="backslashreplace")
    text = row if isinstance(row, str) else repr(row)
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "..."
