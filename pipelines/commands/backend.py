"""Chooses the backend of a command that builds a model in this process."""

from gemma_keras import backend_choice
from pipelines.run.stage_process import set_environment


def use_backend(requested: str | None) -> None:
    """Set the backend and its environment, before anything imports Keras.

    Args:
        requested: what the command line says, or None for `backend_choice`'s order.

    Raises:
        BackendError: unknown, or not installed.
    """
    backend = backend_choice.choose_backend(requested)
    set_environment(backend)
    backend_choice.set_backend(backend)
