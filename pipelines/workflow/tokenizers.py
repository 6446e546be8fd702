"""The tokenizer that a stage will encode with, found before anything runs. Imports no Keras.

Every stage of a chain has the tokenizer of the model that the chain starts from: the workflow's `model`, a folder or
file that a `from` names, or the pretraining stage that trains one from scratch.
"""

import dataclasses
from pathlib import Path

from gemma_keras.checkpoints.errors import CheckpointError
from gemma_keras.checkpoints.formats import recognize
from gemma_keras.checkpoints.hub import hub_source
from gemma_keras.checkpoints.hub_names import HUB_IDS
from gemma_keras.checkpoints.resolve import open_model
from gemma_keras.config import GemmaConfig
from gemma_keras.text.folder import family_of_folder
from gemma_keras.text.tokenizer import GemmaTokenizer
from pipelines.host.paths import find_model, find_path
from pipelines.schema.model import ScratchModel
from pipelines.workflow.schema import Workflow


@dataclasses.dataclass(frozen=True)
class TokenizerOrigin:
    """Where a tokenizer comes from: one of the two.

    Args:
        source: a model's folder or file, or what the hub calls it.
        trained_by: the stage that trains it.
    """

    source: Path | str | None = None
    trained_by: str | None = None

    @property
    def is_local(self) -> bool:
        """True where it can be opened here and now, without a network or a backend."""
        found = recognize(self.source) if isinstance(self.source, Path) else None
        return found is not None and not found.needs_keras


class TurnsOnly:
    """Stands in for a tokenizer that is not here: the encoder refuses the same turns with it, and learns no lengths.

    Args:
        family: which decides on the system role.
    """

    pad_token_id, eos_token_id, bos_token_id, unknown_token_id = range(4)
    start_of_turn_id, end_of_turn_id = 4, 5

    def __init__(self, family: str):
        self.family = family

    def encode(self, text: str) -> list[int]:
        """No ids."""
        return []

    def vocabulary_size(self) -> int:
        """More than any id in a row."""
        return 2**62


def tokenizer_origin(workflow: Workflow, stage: str, base_folder: Path) -> TokenizerOrigin:
    """Where the tokenizer of a stage comes from; neither of the two where that cannot be known.

    Args:
        stage: its name. base_folder: where relative paths start.
    """
    while True:
        encoding = workflow.stages[stage].encoding()
        if encoding is None:
            return TokenizerOrigin()
        name = encoding.model
        if name is None and isinstance(workflow.model, ScratchModel):
            return TokenizerOrigin(trained_by=stage)
        if name is None or name not in workflow.stages:
            break
        stage = name
    name = name or str(workflow.model)
    path = find_path(name, base_folder)
    return TokenizerOrigin(source=name if path is None else find_model(path))


def tokenizer_at_hand(workflow: Workflow, origin: TokenizerOrigin) -> GemmaTokenizer | TurnsOnly | None:
    """The tokenizer itself where it lies here, None where the model there has none; else one for its turns alone."""
    if origin.is_local and origin.source is not None:
        try:
            return open_model(origin.source, with_weights=False).tokenizer
        except CheckpointError:
            pass  # the model is damaged, which is not the rows' fault
    # The one with the system role refuses least.
    return TurnsOnly(_family(workflow, origin) or "gemma3")


def _family(workflow: Workflow, origin: TokenizerOrigin) -> str | None:
    if origin.trained_by is not None and isinstance(workflow.model, ScratchModel):
        return workflow.model.gemma_config().family
    if isinstance(origin.source, Path):
        return family_of_folder(origin.source) if origin.source.is_dir() else None
    try:
        repository = hub_source(str(origin.source)).repository
    except CheckpointError:
        return None
    ours = next((ours for ours, theirs in HUB_IDS.items() if theirs == repository), None)
    return None if ours is None else GemmaConfig.from_name(ours).family
