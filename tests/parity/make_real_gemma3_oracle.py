"""Writes what `transformers` computes with the real Gemma 3 270M into tests/parity/real_gemma3_oracle.npz.

Run once, by hand, where `transformers`, `torch`, `gguf` and the packages of the extra real-model are installed; it
takes some minutes and 4 GiB:

    python tests/parity/make_real_gemma3_oracle.py path/to/gemma-3-270m.gguf

Two rows of ids: "prompt" with its greedy continuation, and "long", longer than the sliding window of 512. All 262,144
logits of a position would be a megabyte, so a few positions are stored, and of each the 256 largest logits and 256 at
random ids.
"""

import pathlib
import sys

import numpy as np
import torch
from real_gemma3_text import PROMPT
from transformers import AutoModelForCausalLM, AutoTokenizer

OUTPUT = pathlib.Path(__file__).with_name("real_gemma3_oracle.npz")
NEW_TOKENS = 24
LONG_TOKENS = 600
PARAGRAPH = (
    "Chapter {n}. In the year {year} the river froze for {n} weeks, and the people of the town walked across it to the "
    "market on the other side. They sold bread, wool and {n} kinds of apples; a child counted the boats that lay in "
    "the ice.\n\n"
)


def main(gguf_file: pathlib.Path) -> None:
    """Write the oracle of `gguf_file`."""
    source = {"pretrained_model_name_or_path": str(gguf_file.parent), "gguf_file": gguf_file.name}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32, attn_implementation="eager").eval()
    generator = np.random.default_rng(0)
    prompt = tokenizer(PROMPT, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        whole = model.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=NEW_TOKENS, do_sample=False
        )
    text = "".join(PARAGRAPH.format(n=n, year=1600 + 7 * n) for n in range(1, 20))
    long = torch.tensor([tokenizer(text)["input_ids"][:LONG_TOKENS]])
    arrays = {"prompt_length": np.int32(prompt.shape[1])}
    for name, ids, positions in (
        ("prompt", whole, range(0, whole.shape[1], 3)),
        ("long", long, (0, 1, 300, 510, 511, 512, 513, 599)),
    ):
        with torch.no_grad():
            logits = model(ids).logits[0, list(positions)].numpy()
        largest = np.argsort(-logits, axis=-1)[:, :256]
        indices = np.concatenate([largest, generator.integers(0, logits.shape[-1], largest.shape)], axis=1)
        arrays |= {
            f"{name}_ids": ids[0].numpy().astype(np.int32),
            f"{name}_positions": np.array(positions, np.int32),
            f"{name}_indices": indices.astype(np.int32),
            f"{name}_logits": np.take_along_axis(logits, indices, axis=1),
        }
    np.savez_compressed(OUTPUT, **arrays)
    print(prompt.tolist(), repr(tokenizer.decode(whole[0])), OUTPUT.stat().st_size)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
