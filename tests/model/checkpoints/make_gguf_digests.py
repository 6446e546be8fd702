"""Writes data/gemma3_270m_gguf_digests.json: some tensors of the real GGUF file by the gguf package alone, which takes
half a minute.

    python tests/model/make_gguf_digests.py FILE.gguf

Every value is gguf.GGUFReader's and gguf.dequantize's; nothing of this project takes part.
Norms are stored as 1 + scale in the file; here too.
"""

import hashlib
import json
import pathlib
import sys

import gguf

CHOSEN = (
    "token_embd.weight", "output_norm.weight", "blk.0.attn_k.weight", "blk.0.attn_output.weight", "blk.3.attn_v.weight",
    "blk.5.ffn_down.weight", "blk.17.ffn_gate.weight", "blk.17.attn_q_norm.weight", "blk.9.post_ffw_norm.weight",
)  # fmt: skip


def main() -> None:
    reader = gguf.GGUFReader(sys.argv[1])
    found = {}
    for tensor in reader.tensors:
        if tensor.name in CHOSEN:
            values = gguf.dequantize(tensor.data, tensor.tensor_type).reshape(tensor.shape[::-1])
            found[tensor.name] = {
                "type": tensor.tensor_type.name,
                "shape": list(values.shape),
                "first": [float(x) for x in values.reshape(-1)[:3]],
                "sha256": hashlib.sha256(values.astype("<f4").tobytes()).hexdigest(),
            }
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    tokenizer = {"count": len(tokens), "sha256": hashlib.sha256("\0".join(tokens).encode()).hexdigest()}
    target = pathlib.Path(__file__).parent / "data" / "gemma3_270m_gguf_digests.json"
    target.write_text(json.dumps({"tensors": found, "tokens": tokenizer}, indent=1) + "\n")


if __name__ == "__main__":
    main()
