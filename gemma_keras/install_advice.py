"""How to install what is missing, in words that are right wherever this package came from: index, wheel or checkout.

`pip install 'gemma-keras[jax]'` would look for this package on an index, which may not have it; the packages that the
extra stands for are there.
"""

import re

DISTRIBUTION = "gemma-keras"
_LINE = re.compile(r"""\s*(?P<package>[^;]*?)\s*;\s*extra\s*==\s*["'](?P<extra>[^"']+)["']\s*\Z""")


def install_command(extra: str) -> str:
    """The command that installs an extra's packages, such as `pip install 'jax>=0.6'`.

    The ranges are those of the installed metadata; without any, where the sources are only on the path, the extra's
    name stands for its package.

    Args:
        extra: as in pyproject.toml, "jax" or "gguf".
    """
    import importlib.metadata

    try:
        lines = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        lines = []
    matches = [match for match in map(_LINE.match, lines) if match is not None and match["extra"] == extra]
    packages = [match["package"].replace(" ", "") for match in matches] or [extra]
    return "pip install " + " ".join(f"'{package}'" for package in packages)
