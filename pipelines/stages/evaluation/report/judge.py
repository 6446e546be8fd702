"""Whose judge a win rate is: a policy judged by the reward that it was trained on proves that training worked, and no
more."""

from collections.abc import Mapping, Sequence

from pipelines.graders.answers import JUDGES_OF_RIGHT
from pipelines.report import format as report_format
from pipelines.report.records import StageRecord
from pipelines.schema.ensembles import ensemble_in
from pipelines.schema.functions import functions_with_settings
from pipelines.schema.roles import FUNCTION_PREFIX, GOLD, REWARD_MODEL_PREFIX, ROLES, references
from pipelines.stages.registry import KINDS


def trained_on(judge: str, policies: Sequence[str], stages: Sequence[StageRecord]) -> dict[str, bool | None]:
    """Whether each policy, or one that it came from, was trained on the judge, of an ensemble on a member.

    Args:
        judge: as the evaluation names it. policies: those compared, stages or folders. stages: of the run.

    Returns:
        By policy; None where that is not known here: the judge, the policy or one that it came from is a folder.
    """
    by_name = {stage.name: stage for stage in stages}
    _, members = ensemble_in(judge)
    models = members or [_bare(judge)] * judge.startswith(REWARD_MODEL_PREFIX)
    is_folder = not by_name.keys() >= set(models)
    judges = {*members, _bare(judge)}

    def is_trained(policy: str) -> bool | None:
        stage = by_name.get(policy)
        if stage is None or stage.kind not in KINDS:
            return None
        named = references(KINDS[stage.kind], stage.config)
        rewards = [_bare(one.name) for one in named if one.is_reward]
        if not judges.isdisjoint((*rewards, *functions_with_settings(stage.config))):
            return True
        sources = [is_trained(one.target) for one in named if one.role is ROLES["policy"]]
        return True if True in sources else None if None in sources or is_folder else False

    return {policy: is_trained(policy) for policy in policies}


def says_what_is_right(judge: str | None) -> bool:
    """True for a judge whose scores are right and wrong, so that shares of right answers are what it found."""
    return judge is not None and judge.removeprefix(FUNCTION_PREFIX) in JUDGES_OF_RIGHT


def judge_words(judge: str | None, is_trained: bool | None, *policies: str) -> str:
    """A judge for readers, behind "judged by".

    Args:
        judge: as the evaluation names it. is_trained: of `trained_on`, of these policies.
    """
    learned = f"{' and '.join(policies)} {'were' if len(policies) > 1 else 'was'} trained on"
    if not judge:
        return "an unnamed judge"
    formula, members = ensemble_in(judge)
    if members:
        of = " and ".join(f"“{name}”" for name in report_format.short_names(members).values())
        words = f"the {formula} of {'other' if is_trained is False else 'the'} reward models {of}"
        return f"{words}, of which {learned} one or more" if is_trained else words
    name = _bare(judge)
    if judge.startswith(REWARD_MODEL_PREFIX):
        name = report_format.short_names([name])[name]
        if is_trained:
            return f"the reward model “{name}” that {learned}"
        return f"the reward model “{name}”" if is_trained is None else f"another reward model, “{name}”"
    words = GOLD if judge == GOLD else f"the function “{name}”"
    return f"{words} that {learned}" if is_trained else words


def judge_sentence(judge: str | None, trained: Mapping[str, bool | None]) -> str:
    """Whose judge an evaluation's win rates are. `trained`: of `trained_on`."""
    if says_what_is_right(judge):
        return "Judged by whether the answer is right: a win is a right answer where the other one is wrong."
    own = [policy for policy, is_trained in trained.items() if is_trained]
    if own:
        words = judge_words(judge, True, *report_format.short_names(own).values())
        return f"Judged by {words}: a win under it says that training reached its aim, not that the answers are better."
    is_known = None not in trained.values()
    return f"Judged by {judge_words(judge, False if is_known else None)}."


def _bare(name: str) -> str:
    return name.removeprefix(REWARD_MODEL_PREFIX).removeprefix(FUNCTION_PREFIX)
