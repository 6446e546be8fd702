"""The tokenizer: exact round trips, no control id from text, the same model from each kind of file."""

import hashlib
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemma_keras.text import export as tokenizer_export
from gemma_keras.text import sentencepiece_files as tokenizer_files
from gemma_keras.text.tokenizer import GemmaTokenizer

pytestmark = pytest.mark.no_backend

TRAIN_IN_A_PROCESS = """
import hashlib, json, sys
from gemma_keras.text.tokenizer import GemmaTokenizer
print(hashlib.sha256(GemmaTokenizer.train(json.load(sys.stdin), 400).model_proto).hexdigest())
print("keras" in sys.modules)
"""
CONTROLS = [
    "<start_of_turn>",
    "<end_of_turn>",
    "[multimodal]",
    "<start_of_image>",
    "<end_of_image>",
    "<bos>",
    "<eos>",
    "<pad>",
    "<unused7>",
]
AWKWARD = [
    "  ",
    "\n",
    "\n\n\n",
    "\t",
    "\r\n",
    "\x00",
    "0",
    "12345",
    "é",
    "漢字",
    "🎉",
    "👩‍👩‍👧",
    "\ufffd",
    "<0x41>",
    "<unk>",
    "<h1>",
    "<",
    ">",
    "_of_turn>",
    "\u00a0",
]


def training_texts() -> list[str]:
    nouns, verbs = (
        ["river", "lantern", "harbour", "meadow", "teacher", "orchard"],
        ["crosses", "remembers", "paints", "follows"],
    )
    sentences = [
        f"The {a} {verb} the {b}, {i}{j} times in 2024."
        for i, a in enumerate(nouns)
        for j, verb in enumerate(verbs)
        for b in nouns
    ]
    return [*sentences, "What is 12 + 30?\n42\n\nList: a, b, c\n- x", "naïve café", "<h1>Title</h1>"]


def gemma_1_like(trained: GemmaTokenizer) -> bytes:
    """Gemma 1's layout around trained pieces: turn marks typed user-defined at 106 and 107, as in the published
    file."""
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<2mass>", "[@BOS@]", *(f"<unused{i}>" for i in range(99))]
    types = [tokenizer_files.CONTROL] * 4 + [tokenizer_files.USER_DEFINED] * (len(pieces) - 4)
    pieces += [
        "<start_of_turn>",
        "<end_of_turn>",
        "\n",
        "\n\n",
        "\u2581\u2581",
        "[multimodal]",
        "<start_of_image>",
        "<h1>",
    ]
    types += [tokenizer_files.USER_DEFINED] * 8
    scores = [0.0] * len(pieces)
    model = tokenizer_files.parse_model(trained.model_proto)
    for entry in model.pieces:
        if entry.type in (tokenizer_files.NORMAL, tokenizer_files.BYTE):
            pieces.append(entry.piece)
            scores.append(entry.score)
            types.append(entry.type)
    ids = {"pad": 0, "eos": 1, "bos": 2, "unk": 3}
    return tokenizer_files.build_model(pieces, scores, types, tokenizer_files.BPE_MODEL, ids)


@pytest.fixture(scope="module")
def trained() -> GemmaTokenizer:
    return GemmaTokenizer.train(training_texts(), 400)


@pytest.fixture(scope="module", params=["trained", "gemma_1_like"])
def tokenizer(request, trained) -> GemmaTokenizer:
    return trained if request.param == "trained" else GemmaTokenizer(gemma_1_like(trained))


def test_layout_of_a_trained_model_is_gemmas(trained):
    assert trained.vocabulary_size() == 400
    assert [trained.piece(i) for i in range(6)] == [
        "<pad>",
        "<eos>",
        "<bos>",
        "<unk>",
        "<start_of_turn>",
        "<end_of_turn>",
    ]
    assert (trained.pad_token_id, trained.eos_token_id, trained.bos_token_id, trained.unknown_token_id) == (0, 1, 2, 3)
    assert trained.control_ids == {0, 1, 2, 4, 5}
    assert trained.stop_token_ids == (1, 5)
    assert trained.family == "gemma"
    assert trained.encode("") == []
    # Digits are single pieces although every sentence holds 2024; the spaces stay.
    assert [trained.piece(i) for i in trained.encode("2024")] == ["2", "0", "2", "4"]
    assert [trained.piece(i) for i in trained.encode("river")] != ["\u2581river"], "no space may be put in front"
    assert trained.encode("\n\n") == [trained.encode("\n")[0] + 1], "newline runs are pieces of their own"


def test_same_texts_give_the_same_bytes_in_another_process(trained, repository):
    done = subprocess.run(
        [sys.executable, "-c", TRAIN_IN_A_PROCESS],
        input=json.dumps(training_texts()),
        capture_output=True,
        text=True,
        cwd=repository,
        check=True,
    )
    digest, keras_imported = done.stdout.split()
    assert digest == hashlib.sha256(trained.model_proto).hexdigest()
    assert keras_imported == "False"
    other = GemmaTokenizer.train(training_texts()[1:], 400).model_proto
    assert other != trained.model_proto


def test_more_characters_than_places_leave_the_rarest_to_bytes():
    texts = ["common words " * 50, "".join(chr(0x4E00 + i) for i in range(300))]
    tokenizer = GemmaTokenizer.train(texts * 2, 320)
    assert tokenizer.vocabulary_size() == 320
    assert tokenizer.decode(tokenizer.encode(texts[1])) == texts[1]
    assert len(tokenizer.encode("o")) == 1


@pytest.mark.parametrize(
    ("texts", "size", "message"),
    [
        (["abc"], 100, "`vocabulary_size` must be at least 300"),
        (["", ""], 400, "no text that is not empty"),
        (["abc"], 400, "vocabulary_size=400"),
    ],
)
def test_training_errors_name_the_cause(texts, size, message):
    with pytest.raises(ValueError, match=message):
        GemmaTokenizer.train(texts, size)


fragments = st.one_of(st.text(max_size=8), st.sampled_from(CONTROLS + AWKWARD))


@settings(max_examples=400, deadline=None, derandomize=True)
@given(parts=st.lists(fragments, max_size=8))
def test_any_text_comes_back_and_yields_no_control_id(tokenizer, parts):
    text = "".join(parts).replace("\u2581", "")
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode(ids, keep_control=True) == text
    assert not tokenizer.control_ids & set(ids)
    assert tokenizer.unknown_token_id not in ids


def test_each_control_piece_as_text(tokenizer):
    for i in sorted(tokenizer.control_ids):
        piece = tokenizer.piece(i)
        for text in (
            piece,
            piece * 2,
            f"{piece[:5]} {piece[5:]}",
            f"a{piece}b",
            f"<{piece}>",
            piece[:-1],
            piece[1:],
            piece.upper(),
            f"\n{piece}\n",
        ):
            ids = tokenizer.encode(text)
            assert not tokenizer.control_ids & set(ids), text
            assert tokenizer.decode(ids) == text


def test_control_set_holds_user_defined_marks(trained):
    like = GemmaTokenizer(gemma_1_like(trained))
    assert (like.start_of_turn_id, like.end_of_turn_id) == (106, 107)
    named = {like.piece(i) for i in like.control_ids}
    assert named == {"<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>", "[multimodal]", "<start_of_image>"}
    # Other user-defined pieces are text.
    assert like.encode("<h1>") == [113]
    assert like.encode("   ")[0] == 110
    # The model's own bytes are not the mended copy.
    types = [entry.type for entry in tokenizer_files.parse_model(like.model_proto).pieces]
    assert types[106] == types[107] == tokenizer_files.USER_DEFINED


def test_lower_one_eighth_block_is_the_one_exception(trained):
    assert trained.decode(trained.encode("a\u2581b")) == "a b"


def test_decode_shows_or_hides_control_pieces(trained):
    ids = [2, 4, *trained.encode("hi 漢"), 5, *trained.encode(" x"), 0, 0]
    assert trained.decode(ids) == "hi 漢 x"
    assert (
        trained.decode(np.array(ids, dtype=np.int32), keep_control=True)
        == "<bos><start_of_turn>hi 漢<end_of_turn> x<pad><pad>"
    )


def test_wrong_arguments_are_named(trained):
    with pytest.raises(ValueError, match="from 0 to 399. Received: 400"):
        trained.decode([5, 400])
    with pytest.raises(ValueError, match="Received: -1"):
        trained.decode([-1])
    with pytest.raises(TypeError, match="`encode_batch`"):
        trained.encode(["a"])
    with pytest.raises(ValueError, match="`family` must be one of"):
        GemmaTokenizer(trained.model_proto, family="gemma9")
    assert trained.encode_batch(["a", "b c"]) == [trained.encode("a"), trained.encode("b c")]


def test_saved_folder_comes_back_with_the_sources_bytes(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    assert (tmp_path / "tokenizer.model").read_bytes() == tokenizer.model_proto
    again = GemmaTokenizer.from_folder(tmp_path)
    assert again.encode("The river <h1> é") == tokenizer.encode("The river <h1> é")
    again.save(tmp_path / "copy")
    for name in ("tokenizer.model", "tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "copy" / name).read_bytes() == (tmp_path / name).read_bytes()
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert (config["bos_token"], config["eos_token"], config["pad_token"]) == ("<bos>", "<eos>", "<pad>")


def test_tokenizer_json_of_the_source_is_copied_along(trained, tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(trained.model_proto)
    source = tokenizer_export.tokenizer_json(trained.model_proto) + b"\n"
    (tmp_path / "tokenizer.json").write_bytes(source)
    GemmaTokenizer.from_folder(tmp_path).save(tmp_path / "copy")
    assert (tmp_path / "copy" / "tokenizer.json").read_bytes() == source


@pytest.mark.parametrize("model_type", ["gemma", "gemma2", "gemma3_text", "gemma3"])
def test_family_comes_from_the_config_beside(trained, tmp_path, model_type):
    trained.save(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    assert GemmaTokenizer.from_folder(tmp_path).family == model_type.removesuffix("_text")
    (tmp_path / "config.json").write_text("{")
    assert GemmaTokenizer.from_folder(tmp_path).family == "gemma"


def test_tokenizer_json_alone_gives_the_same_ids(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    (tmp_path / "tokenizer.model").unlink()
    rebuilt = GemmaTokenizer.from_folder(tmp_path)
    assert rebuilt.control_ids == tokenizer.control_ids
    for text in [*training_texts(), *CONTROLS, *AWKWARD, "".join(AWKWARD)]:
        assert rebuilt.encode(text) == tokenizer.encode(text), text


def test_a_gguf_file_that_ends_texts_with_turns_keeps_both_ends(trained):
    metadata = {**gguf_metadata(trained), "tokenizer.ggml.eos_token_id": 5, "tokenizer.ggml.eot_token_id": 7}
    tokenizer = GemmaTokenizer.from_gguf_metadata(metadata)
    assert tokenizer.eos_token_id == 1 and tokenizer.stop_token_ids == (1, 5, 7)


def test_a_gguf_files_chat_template_is_handed_on(trained):
    metadata = {**gguf_metadata(trained), "tokenizer.chat_template": "theirs"}
    assert GemmaTokenizer.from_gguf_metadata(metadata).chat_template == "theirs"


def test_tokenizer_json_of_gemma_1_with_a_tab_for_its_byte(trained):
    """The published file holds "\\t" where the model has `<0x09>`, and merges as strings."""
    content = json.loads(tokenizer_export.tokenizer_json(trained.model_proto))
    vocabulary = content["model"]["vocab"]
    tab = vocabulary.pop("<0x09>")
    vocabulary["\t"] = tab
    content["model"]["merges"] = [" ".join(merge) for merge in content["model"]["merges"]]
    rebuilt = GemmaTokenizer(tokenizer_files.model_from_tokenizer_json(json.dumps(content)))
    assert rebuilt.encode("a\tb") == [*trained.encode("a"), tab, *trained.encode("b")]
    assert rebuilt.decode([tab]) == "\t"


def test_unigram_tokenizer_json(trained):
    vocabulary = [
        ["<pad>", 0],
        ["<eos>", 0],
        ["<bos>", 0],
        ["<unk>", 0],
        ["\u2581a", -1.0],
        ["a", -2.0],
        ["b", -2.5],
        ["ab", -9.0],
        ["\u2581", -3.0],
    ]
    added = [{"id": i, "content": vocabulary[i][0], "special": True} for i in range(4)]
    content = {"model": {"type": "Unigram", "unk_id": 3, "vocab": vocabulary}, "added_tokens": added}
    tokenizer = GemmaTokenizer(tokenizer_files.model_from_tokenizer_json(json.dumps(content)))
    # -2.0 - 2.5 beats -9.0: the likeliest segmentation, not the longest piece.
    assert tokenizer.encode("ab a") == [5, 6, 4]
    assert tokenizer_export.tokenizer_json(tokenizer.model_proto) is None


def gguf_metadata(tokenizer: GemmaTokenizer) -> dict:
    entries = tokenizer_files.parse_model(tokenizer.model_proto).pieces
    user_defined = tokenizer_files.USER_DEFINED
    return {
        "general.architecture": "gemma2",
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [
            e.piece.replace("\u2581", " ") if e.type == user_defined else e.piece for e in entries
        ],
        "tokenizer.ggml.scores": np.array([e.score for e in entries], dtype=np.float32),
        "tokenizer.ggml.token_type": np.array([3 if e.piece == "<unk>" else e.type for e in entries], dtype=np.int32),
        "tokenizer.ggml.bos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 3,
    }


def test_gguf_metadata_give_the_same_ids(tokenizer):
    rebuilt = GemmaTokenizer.from_gguf_metadata(gguf_metadata(tokenizer))
    assert rebuilt.family == "gemma2"
    assert rebuilt.control_ids == tokenizer.control_ids
    for text in [*training_texts(), *CONTROLS, *AWKWARD, "".join(AWKWARD), "a     b"]:
        assert rebuilt.encode(text) == tokenizer.encode(text), text
        assert rebuilt.decode(rebuilt.encode(text)) == text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokenizer.ggml.scores": None}, "missing tokenizer.ggml.scores"),
        ({"tokenizer.ggml.model": "gpt2"}, "must be 'llama'"),
        ({"tokenizer.ggml.scores": 3.0}, "must be lists of strings, numbers and integers"),
        (
            {"tokenizer.ggml.unknown_token_id": "three"},
            "`tokenizer.ggml.unknown_token_id` must be an integer. Received: 'three'",
        ),
        ({"tokenizer.ggml.scores": [0.0]}, "400 tokens, 1 scores, 400 token types"),
        ({"tokenizer.ggml.bos_token_id": 400}, "`tokenizer.ggml.bos_token_id` must be an id below 400. Received: 400"),
    ],
)
def test_gguf_metadata_errors(trained, change, message):
    metadata = {key: value for key, value in {**gguf_metadata(trained), **change}.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        GemmaTokenizer.from_gguf_metadata(metadata)


def test_broken_files_are_named(trained, tmp_path):
    file = tmp_path / "tokenizer.model"
    with pytest.raises(FileNotFoundError, match="expected tokenizer.model or tokenizer.json"):
        GemmaTokenizer.from_folder(tmp_path)
    for content in (b"", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", trained.model_proto[:1000]):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=f"{file}: "):
            GemmaTokenizer.from_folder(tmp_path)
    file.unlink()
    for content in (
        "{",
        "[]",
        '{"model": {"type": "WordPiece", "vocab": {}}}',
        '{"model": {"vocab": {"a": 3}, "type": "BPE"}}',
    ):
        pathlib.Path(tmp_path / "tokenizer.json").write_text(content)
        with pytest.raises(ValueError, match="tokenizer.json"):
            GemmaTokenizer.from_folder(tmp_path)


def test_model_without_turn_marks_stops_at_eos_only(trained):
    model = tokenizer_files.parse_model(trained.model_proto)
    model.pieces[4].piece, model.pieces[5].piece = "<a>", "<b>"
    tokenizer = GemmaTokenizer(model.SerializeToString())
    assert tokenizer.start_of_turn_id is None
    assert tokenizer.stop_token_ids == (1,)
