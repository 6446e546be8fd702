"""Loading or converting a big checkpoint in a process of its own, and the most memory that it ever held.

    python tests/model/load_memory_probe.py load FOLDER DTYPE
    python tests/model/load_memory_probe.py convert SOURCE TARGET DTYPE

Prints the peak resident memory of this process in bytes, the framework's own included.
"""

import sys

from pipelines.host.process_memory import peak_memory_gib


def main(action: str, *arguments: str) -> None:
    """Do it and print the peak."""
    if action == "load":
        from gemma_keras import GemmaCausalLM

        folder, dtype = arguments
        model = GemmaCausalLM.from_preset(folder, dtype=dtype)
        if model.backbone.named_variables()["embedding"].dtype != dtype:
            raise SystemExit("the weights have another dtype")
    else:
        from pipelines import cli

        source, target, dtype = arguments
        if cli.main(["convert", source, target, "--dtype", dtype]):
            raise SystemExit("convert failed")
    print(round(peak_memory_gib() * 2**30))


if __name__ == "__main__":
    main(*sys.argv[1:])
