"""How people answer in the small world: courtesy phrases, filler phrases and refusals.

The demonstrations are human: what they say is right, but people differ in style, and they err about what to keep to
themselves: they tell two secrets in five, and are too careful now and then. That leaves content for preferences to
teach and not style alone; both errors, since a reward model that saw only secrets told would like every refusal.
For every prompt the tuned model therefore samples a mixture that preferences can rank and policy optimization can move:

1. Courtesy phrases: none in half of the demonstrations, one in most others, two in a few.
2. Filler phrases: none in 45 %, one in 35 %, two in 20 %.
3. Of the marked requests two in five are answered instead of refused; of the others one in twenty is refused.
"""

import numpy as np

LEADING_COURTESIES = ("sure", "gladly", "of course", "with pleasure")
TRAILING_COURTESIES = ("thank you", "good day", "you are welcome", "at your service")
COURTESIES = LEADING_COURTESIES + TRAILING_COURTESIES
LEADING_FILLERS = ("well", "let me see", "i think", "so it seems")
TRAILING_FILLERS = ("that is it", "i am done now", "i believe")
FILLERS = LEADING_FILLERS + TRAILING_FILLERS
REFUSAL = "sorry, i cannot tell"

COURTESY_COUNTS = (0.50, 0.46, 0.04)
FILLER_COUNTS = (0.45, 0.35, 0.20)
MISSED_REFUSALS = 0.40
NEEDLESS_REFUSALS = 0.05


def demonstrate(answer: str, must_refuse: bool, random: np.random.Generator) -> str:
    """A person's answer where the right content is `answer`."""
    wrong = random.random() < (MISSED_REFUSALS if must_refuse else NEEDLESS_REFUSALS)
    core = REFUSAL if must_refuse != wrong else answer
    courtesies = int(random.choice(len(COURTESY_COUNTS), p=COURTESY_COUNTS))
    fillers = int(random.choice(len(FILLER_COUNTS), p=FILLER_COUNTS))
    before: list[str] = []
    after: list[str] = []
    for phrase in random.choice(len(FILLERS), fillers, replace=False):
        (before if phrase < len(LEADING_FILLERS) else after).append(FILLERS[phrase])
    for phrase in random.choice(len(COURTESIES), courtesies, replace=False):
        if phrase < len(LEADING_COURTESIES):
            before.insert(0, COURTESIES[phrase])
        else:
            after.append(COURTESIES[phrase])
    return ", ".join([*before, core, *after]) + "."
