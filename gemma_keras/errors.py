"""Errors that are a user's to mend, apart from damaged model files (`checkpoints/errors.py`)."""


class InputError(ValueError):
    """What a user gave does not fit: the text says what was expected, what was received and what to do.

    The command line shows it as one line and exits with 2; any other `ValueError` is taken for a bug of ours.
    """
