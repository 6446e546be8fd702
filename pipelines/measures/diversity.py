"""How much of what a policy says is the same: a policy whose reward is hacked often says one thing to everybody."""

from collections import Counter
from collections.abc import Sequence


def distinct_ngrams(responses: Sequence[Sequence[int]], n: int) -> float:
    """Distinct n-grams over all n-grams of all responses: 1 where nothing comes twice, 1 where none is so long.

    It falls with the number of responses as well, so compare rollouts of one size.

    Args:
        responses: token ids of each. n: int >= 1.

    Source: Li et al. 2016, arXiv:1510.03055, section 5 ("distinct-n"), over a rollout.
    """
    grams = [tuple(response[start : start + n]) for response in responses for start in range(len(response) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 1.0


def equal_pairs(responses: Sequence[Sequence[int]], samples_per_prompt: int) -> float:
    """Of two responses to one prompt, how often they are the same to the token, over all pairs and prompts; 0 with one
    response a prompt.

    Args:
        responses: token ids, those of a prompt one after the other.
    """
    k = samples_per_prompt
    if k < 2 or not responses:
        return 0.0
    same = 0
    for first in range(0, len(responses), k):
        counts = Counter(map(tuple, responses[first : first + k]))
        same += sum(count * (count - 1) for count in counts.values())
    return same / (len(responses) * (k - 1))
