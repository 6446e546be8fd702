"""Work in parts that is finished, on disk for a later stage that asks for the same: another limit of a benchmark's
stage, or one model more, computes what is new alone.

Only whole work is kept: its parts are cut by what all of it is, so that a part computed in other company has other last
bits.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gemma_keras.checkpoints.errors import CheckpointError
from pipelines.host.parts import Compute, Keep
from pipelines.training.model_folder import write_folder
from pipelines.training.state_files import by_part, flat_parts, read_state, write_state

PREFIX = "answers-"
"""Of the folders' names, beside those of kept results."""


class KeptParts:
    """What of a stage's work is known from before, and is kept for later.

    Args:
        folder: the run's `kept/`. identity: JSON of what any such work depends on: code, versions, machine, backend.
        inputs: name of a stage, or the key that names a folder → digest of what is there.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], inputs: Mapping[str, str]) -> None:
        self._folder, self._identity, self._inputs = folder, identity, inputs

    def digest_of(self, name: str, key: str) -> str | None:
        """Of a model that a stage reads; None of one on the hub, where nobody can say which commit it is.

        Args:
            name: as the workflow has it. key: that names it there.
        """
        return self._inputs.get(name) or self._inputs.get(key)

    def around(self, keep: Keep, work: Any) -> Keep:
        """A `Keep` that takes the parts of some work from disk where it was finished before, and keeps them there once
        all have been asked for; of other work it is `keep`.

        Args:
            work: JSON of all that decides about its parts.
        """
        text = json.dumps([self._identity, work], sort_keys=True, ensure_ascii=False)
        digest = hashlib.sha256(text.encode()).hexdigest()
        place = self._folder / f"{PREFIX}{digest[:16]}"
        known = _read(place, digest)
        found: dict[str, Mapping[str, np.ndarray]] = {}

        def kept(name: str, compute: Compute, of: int | None = None) -> Mapping[str, np.ndarray]:
            if name in known:
                return known[name]
            found[name] = keep(name, compute, of)
            if len(found) == of:
                arrays = flat_parts(found)
                place.parent.mkdir(exist_ok=True)
                manifest = {"key": digest, "step": of, "done": of, "of": of, "unit": "parts", "seconds": 0}
                write_folder(place, lambda folder: write_state(folder, arrays, manifest))
            return found[name]

        return kept


def _read(place: Path, digest: str) -> dict[str, dict[str, np.ndarray]]:
    """The parts there; none where nothing is there, or it is damaged."""
    if not place.is_dir():
        return {}
    try:
        arrays, manifest = read_state(place)
        if manifest["key"] != digest:
            return {}
    except (ValueError, KeyError, TypeError, OSError, CheckpointError):
        return {}
    return by_part(arrays)
