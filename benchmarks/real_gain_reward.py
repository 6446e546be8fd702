"""The rewards of benchmarks/real_gain.yaml, as they are of a user's own: `--plugin benchmarks/real_gain_reward.py`."""

import re

ASKED = re.compile(r'exactly (\d+) words with the word "([a-z]+)"')
FAR = 4
"""Words too many or too few that earn nothing."""


def as_asked(prompts, completions, **columns):
    """1.0 for one sentence of as many words as the prompt asks for, the given one among them, else 0.0."""
    held, near = word_held(prompts, completions), words_near(prompts, completions)
    return [float(one == 1 and other == 1) for one, other in zip(held, near, strict=True)]


def word_held(prompts, completions, **columns):
    """1.0 for one sentence that holds the word that the prompt asks for, else 0.0."""
    asked = [ASKED.search(prompt).group(2) for prompt in prompts]
    return [
        float(word in re.findall(r"[a-z']+", text.lower()) and re.fullmatch(r"[^.?!]+[.?!]\s*", text) is not None)
        for word, text in zip(asked, completions, strict=True)
    ]


def words_near(prompts, completions, **columns):
    """1.0 for as many words as the prompt asks for, falling to 0 where there are `FAR` too many or too few."""
    asked = [int(ASKED.search(prompt).group(1)) for prompt in prompts]
    return [max(0.0, 1 - abs(len(text.split()) - count) / FAR) for count, text in zip(asked, completions, strict=True)]
