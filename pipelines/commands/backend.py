"""Chooses the backend of a command that builds a model in this process."""

from gemma_keras import backend_choice
from pipelines.host import imports
from pipelines.run.stage_process import set_environment


def use_backend(requested: str | None) -> None:
    """Set the backend and its environment, then load Keras, without the figures that no command draws.

    Args:
        requested: what the command line says, or None for `backend_choice`'s order.

    Raises:
        BackendError: unknown, or not installed.
    """
    backend = backend_choice.choose_backend(requested)
    set_environment(backend)
    backend_choice.set_backend(backend)
    with imports.without(imports.FIGURES):
        import keras  # noqa: F401  nothing may have imported it before
