"""The one error of everything that reads or writes model files."""


class CheckpointError(ValueError):
    """A model file or folder is missing, damaged, hostile, or holds another model than its configuration says.

    Its text is one line: the file, what is wrong, what was expected, what was found, what to do.
    """
