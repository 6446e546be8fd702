"""What the real Gemma 3 270M, a base model, says to a prompt: greedy decoding by `transformers`, 24 tokens."""

PROMPT = "The capital of France is"
CONTINUATION = (
    " the capital of the country of France. It is the largest city in France and the second largest city in Europe. It"
)
