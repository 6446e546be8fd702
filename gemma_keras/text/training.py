"""Training of a small SentencePiece model with Gemma's layout, for models made from scratch."""

import collections
import io
from collections.abc import Iterable

import sentencepiece

from gemma_keras.errors import InputError
from gemma_keras.text.sentencepiece_files import END_OF_TURN, START_OF_TURN

# Pieces that stand in every vocabulary: four specials, two turn marks, newlines, bytes.
_NEWLINES = ["\n", "\n\n"]
_FIXED_PIECES = 4 + 2 + len(_NEWLINES) + 256


def train_model(texts: Iterable[str], vocabulary_size: int) -> bytes:
    """Trains byte-pair encoding on texts; the same texts give the same bytes.

    The layout is Gemma's: pad 0, eos 1, bos 2, unk 3, turn marks as control pieces, digits split, byte fallback, spaces
    kept, no normalization. Characters that do not fit into half of the free places, the rarest first, are left to the
    bytes.

    Args:
        texts: strings; they may hold newlines.
        vocabulary_size: v, pieces in all, at least 300.

    Returns:
        bytes of a `tokenizer.model`.

    Raises:
        InputError: too small a vocabulary, no text, or fewer pieces in the texts than asked for.
    """
    if vocabulary_size < _FIXED_PIECES + 36:
        raise InputError(
            f"`vocabulary_size` must be at least {_FIXED_PIECES + 36}: {_FIXED_PIECES} pieces are fixed. Received: "
            f"{vocabulary_size}"
        )
    texts = [text for text in texts if text]
    if not texts:
        raise InputError("A tokenizer needs text to be trained on. Received: no text that is not empty.")
    written = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(_without_rare_characters(texts, (vocabulary_size - _FIXED_PIECES) // 2)),
            model_writer=written,
            model_type="bpe",
            vocab_size=vocabulary_size,
            character_coverage=1.0,
            pad_id=0,
            eos_id=1,
            bos_id=2,
            unk_id=3,
            pad_piece="<pad>",
            eos_piece="<eos>",
            bos_piece="<bos>",
            unk_piece="<unk>",
            control_symbols=[START_OF_TURN, END_OF_TURN],
            user_defined_symbols=_NEWLINES,
            byte_fallback=True,
            split_digits=True,
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            normalization_rule_name="identity",
            max_sentence_length=2**30,  # the default skips texts above 4192 bytes
            num_threads=1,  # several threads may break ties in another order
            minloglevel=2,
        )
    except RuntimeError as error:
        raise InputError(
            f"No tokenizer of vocabulary_size={vocabulary_size} from {len(texts)} texts. SentencePiece says: {error}"
        ) from error
    return written.getvalue()


def _without_rare_characters(texts: list[str], most_characters: int) -> list[str]:
    # SentencePiece's own `character_coverage` cannot go below 0.98, and fails where the characters then outnumber the
    # places.
    counts = collections.Counter(character for text in texts for character in text if character != "\n")
    rare = [character for character, _ in counts.most_common()[most_characters:]]
    # A newline is a piece of its own, so nothing is learned across the gap.
    return [text.translate(dict.fromkeys(map(ord, rare), "\n")) for text in texts] if rare else texts
