"""Sizes from which on a computation takes another way. The memory plan, which loads no Keras, reads them as well."""

DENSE_LOGITS = 1 << 24
"""Logits of at most this many floats (64 MiB) are computed at once; above it, in chunks of about half as many."""
LEAST_CHUNK = 256
"""But a chunk has at least this many positions: each adds its share to a gradient as large as the matrix, (v, d), and
with 32 positions at v = 262,144 those additions took twice the time of the whole model."""

DENSE_TOKENS = {"jax": 128, "tensorflow": 128, "torch": 512}
"""Rows of up to so many tokens are faster with the whole attention mask; longer ones are computed in blocks."""

BRANCHES = 1 << 16
"""Segments of a row are numbered below it. Number `branch * BRANCHES + segment`, with a branch from 1, continues that
segment beside other branches: several answers to a prompt that stands in the row once."""

LEAST_HALVED_ROWS = 64
"""Of a batch in decoding that goes on in half its size: fewer take hardly less time a step."""
LONG_DECODING = 64
"""Steps, above which a second halving is worth the loop that must be compiled for it."""
