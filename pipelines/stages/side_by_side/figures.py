"""The figures of one policy against the baseline: of each set and of all, of the judge, and of people where they have
rated."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipelines.measures.agreement import agreement_figures
from pipelines.measures.judges import TIE, rates_with_interval
from pipelines.measures.side_by_side import side_by_side_figures
from pipelines.scoring.pairwise.base import by_odds
from pipelines.scoring.pairwise.both_orders import Judged, PairToJudge, is_turned, judge_pairs
from pipelines.scoring.pairwise.rules import RULES, RuleJudge
from pipelines.stages.side_by_side.answers import ALL

JUDGE, BY_ODDS = "judge", "judge, by the mean odds"
"""Who agrees with people: the judge with ties where its orders contradict, and without."""


@dataclasses.dataclass(frozen=True)
class Compared:
    """A policy against the baseline, before the judge and perhaps before people.

    Args:
        pairs: the policy's answer first. judged: what the judge said. people: int (n,), 1 where they prefer the
            policy's answer, -1 the baseline's, 0 for neither; None where nobody has rated, of a pair 99 where nobody
            has rated it.
        sets: name of the set of each pair. groups: int (n,), equal where prompts are the same.
        seed, stage: key of the order in which people saw the answers.
    """

    pairs: Sequence[PairToJudge]
    judged: Judged
    people: np.ndarray | None
    sets: Sequence[str]
    groups: np.ndarray
    seed: int
    stage: str

    def by_set(self) -> dict[str, dict[str, Any]]:
        """Of each set by name what `figures` says, and of all together, last."""
        names = list(dict.fromkeys(self.sets))
        rows = {name: np.array([one == name for one in self.sets]) for name in names if name != ALL}
        return {name: self.figures(of_set) for name, of_set in {**rows, ALL: np.ones(len(self.sets), bool)}.items()}

    def figures(self, rows: np.ndarray) -> dict[str, Any]:
        """Of some pairs: `side_by_side_figures`; `identical`, pairs that read the same, which nobody was asked about;
        `odds_win_rate` and `odds_win_rate_ci95`, by the sign of the log-odds over both orders, None where the judge
        gives none; `people`, see `_of_people`.

        Args:
            rows: bool (n,), at least one.
        """
        index = np.flatnonzero(rows)
        pairs, groups = [self.pairs[i] for i in index.tolist()], self.groups[index]
        lengths, others = ([len(pair.answers[side]) for pair in pairs] for side in (0, 1))
        judged = self.judged
        by_odds_alone = None
        if not np.isnan(judged.log_odds[index]).all():
            by_odds_alone = rates_with_interval((by_odds(judged.log_odds[index], TIE) + 1) / 2, groups)
        return {
            **side_by_side_figures(judged.as_first[index], judged.as_second[index], lengths, others, groups),
            "identical": sum(pair.answers[0] == pair.answers[1] for pair in pairs),
            "odds_win_rate": by_odds_alone and by_odds_alone["win_rate"],
            "odds_win_rate_ci95": by_odds_alone and by_odds_alone["win_rate_ci95"],
            "people": self._of_people(index),
        }

    def _of_people(self, index: np.ndarray) -> dict[str, Any] | None:
        """Of the pairs that people rated `rates`, as of `rates_with_interval`, and `agreement`: who → its
        `agreement_figures` with people; None without any. The verdicts are compared in the order that people saw."""
        if self.people is None:
            return None
        rated = index[self.people[index] != UNRATED]
        if not len(rated):
            return None
        shown = np.array([-1 if is_turned(self.seed, self.stage, self.pairs[i].identifier) else 1 for i in rated])
        people, groups = self.people[rated], self.groups[rated]
        found = {
            who: agreement_figures(verdicts[rated] * shown, people * shown, groups)
            for who, verdicts in self._verdicts().items()
        }
        return {"rates": rates_with_interval((people + 1) / 2, groups), "agreement": found}

    def _verdicts(self) -> Mapping[str, np.ndarray]:
        """Of the judge and of each rule, int (n,), 1 where the policy's answer is preferred."""
        found = {JUDGE: (2 * self.judged.outcomes - 1).astype(int)}
        if not np.isnan(self.judged.log_odds).all():
            found[BY_ODDS] = by_odds(self.judged.log_odds, TIE).astype(int)
        for rule in RULES:
            # A draw in each order would mostly be a tie: the coin is tossed once.
            judged = judge_pairs(self.pairs, RuleJudge(rule, self.seed), "shuffled", self.seed, self.stage)
            found[rule] = (2 * judged.outcomes - 1).astype(int)
        return found


UNRATED = 99
"""In the place of what people say of a pair that nobody has rated."""
