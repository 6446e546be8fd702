"""`python -m pipelines` and `gemma-keras`: the command line, and Ctrl-C while it is being loaded."""

import sys


def main() -> int:
    """Run the command; returns its exit code."""
    try:
        from pipelines.cli import main as command

        return command()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
