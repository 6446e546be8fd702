"""How wide the parts of a rollout are: at most four shapes, as each is compiled once in every program that takes them.

Half of a stage's rows need half of what the longest prompt with the longest response needs, and less.
"""

ONE_WIDTH = 40  # tokens; up to here padding costs less than another compilation


def quarters(longest: int) -> list[int]:
    """Widths for sequences of up to `longest` >= 1 tokens, rising: one up to 40 tokens, above it a quarter, a half,
    three quarters and all of it."""
    return [longest] if longest <= ONE_WIDTH else [-(-longest * part // 4) for part in (1, 2, 3, 4)]


def part_shapes(prompt_slots: int, response_slots: int) -> list[tuple[int, int]]:
    """Shapes (t, m) of rows of a prompt and its response: t positions, of which m predict the response.

    The narrow half of them holds responses of up to half the slots: beside a large vocabulary they are what costs.
    """
    widths = quarters(prompt_slots + response_slots)
    half = -(-response_slots // 2)
    return [(width, half if place < len(widths) // 2 else response_slots) for place, width in enumerate(widths)]
