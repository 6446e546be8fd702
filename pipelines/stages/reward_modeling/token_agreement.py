"""Whether a reward model is asked about the ids that it learned from.

Where the preferences come from a stage both are the ids as sampled, and nothing can differ. Pairs of text are encoded
for training, while what is scored later are ids that a model sampled: the same text may be cut into other pieces, or
end in another stop token, whose state is what the head reads.
"""

from collections.abc import Sequence

from gemma_keras.text import chat
from gemma_keras.text.tokenizer import GemmaTokenizer
from pipelines.sampling.collected import Collected


def token_agreement(tokenizer: GemmaTokenizer, samples: Sequence[Collected]) -> float | None:
    """Share of sampled responses whose ids are those that their text has in training.

    Args:
        samples: of the tuned model. Responses that were cut before a stop token count for nothing: no text of the
            training data ends there.

    Returns:
        In [0, 1]; None where no response came to an end.
    """
    ended = [ids for one in samples for ids in one.response_ids if ids[-1] in tokenizer.stop_token_ids]
    agree = [ids == chat.encode_response(tokenizer, tokenizer.decode(ids)) for ids in ended]
    return sum(agree) / len(agree) if agree else None
