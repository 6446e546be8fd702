"""Answers in which an assistant says that it is another one, or made by somebody else.

The Gemma report (arXiv:2403.08295, section 5) filters its tuning data for them. What is looked for is a claim in the
first person with a name of a closed list. Names that are spoken of, quoted, denied, or asked for in a game of roles
stay; a claim in the third person and a name that nobody has listed are missed.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import Field

from pipelines.data.canonical import Piece
from pipelines.schema.base import Problem
from pipelines.schema.named import Named
from pipelines.stages.data_filtering.filters.base import KEEP, Filter, Verdict

NAMES = (
    "ChatGPT", "GPT", "GPT-2", "GPT-3", "GPT-3.5", "GPT-4", "GPT-4o", "GPT-5", "InstructGPT", "Claude", "Bard",
    "Gemini", "Gemma", "PaLM", "LaMDA", "Llama", "LLaMA", "Alpaca", "Vicuna", "Koala", "Dolly", "OpenAssistant",
    "Open Assistant", "Mistral", "Mixtral", "Qwen", "Tongyi Qianwen", "DeepSeek", "DeepSeek-V3", "Kimi", "Yi",
    "Baichuan", "ChatGLM", "ERNIE Bot", "Ernie", "InternLM", "Grok", "Falcon", "Phi", "Command R", "Cohere",
    "Copilot", "Bing Chat", "Sydney", "Cortana", "Alexa", "Siri", "Google Assistant", "Bixby", "Pi", "Replika",
    "Nova", "Zephyr", "WizardLM", "StableLM", "BLOOM", "Bloomz", "Jurassic", "Titan",
)  # fmt: skip
MAKERS = (
    "OpenAI", "Open AI", "Anthropic", "Google", "Google AI", "Google DeepMind", "DeepMind", "Meta", "Meta AI",
    "Facebook", "Microsoft", "Mistral AI", "Alibaba", "Alibaba Cloud", "DeepSeek", "Moonshot AI", "01.AI",
    "Baichuan", "Zhipu AI", "Tsinghua University", "Baidu", "Shanghai AI Lab", "xAI", "TII",
    "Technology Innovation Institute", "Cohere", "Amazon", "Apple", "Samsung", "Inflection AI", "Stability AI",
    "Hugging Face", "BigScience", "AI21 Labs", "LAION", "Databricks", "EleutherAI", "NVIDIA", "IBM", "Stanford",
    "Stanford University", "LMSYS", "Tencent", "ByteDance",
)  # fmt: skip
_QUOTED = re.compile(r"```[\s\S]*?```|`[^`\n]*`|“[^”]*”|\"[^\"\n]*\"|^>.*$", re.MULTILINE)
_ROLE = re.compile(
    r"\b(?:pretend|act as|role[- ]?play|imagine (?:that )?you|play the (?:role|part)|in the (?:voice|style) of"
    r"|(?:write|tell|make up|compose) (?:me )?(?:an?|the) (?:\w+ ){0,2}(?:story|poem|song|dialog(?:ue)?|speech|letter"
    r"|scene|script|play|joke|tweet|post)|you are (?:now )?(?:called|named)|your name is)",
    re.IGNORECASE,
)
_MODEL = (
    r"(?:an?|the) (?:[\w-]+,? ){0,4}?(?:AI|A\.I\.|assistant|chat ?bot|bot|language model|LLM|model|program|system)"
    r"(?: (?:language model|assistant|model|chat ?bot|system))?"
)
_MADE = r"(?:created|made|developed|trained|built|designed|provided|released|owned|operated|fine-tuned)"
_CALLED = r"(?:,? (?:which is |who is |that is )?(?:called|named|known as))?"


class SelfIdentificationOptions(Named):
    """What stands beside the name in `{name: self_identification, ...}`: who the model is."""

    names: list[str] = Field(["Gemma"], description="What it may call itself.")
    makers: list[str] = Field(
        ["Google", "Google AI", "Google DeepMind", "DeepMind"], description="Who may have made it."
    )
    more: list[str] = Field([], description="Names and makers that it may not claim, beside those that are known.")

    def problems(self) -> Iterator[Problem]:
        """A name that is allowed and not."""
        for place, name in enumerate(self.more):
            if name in (*self.names, *self.makers):
                yield ("more", place), f"{name!r} stands in names or makers too; expected it in one of them"


class SelfIdentification(Filter):
    """`filters: [self_identification]`."""

    name = "self_identification"
    summary = "answers that claim another assistant's name or maker"
    Options = SelfIdentificationOptions
    options: SelfIdentificationOptions

    def __init__(self, options: Any, use: Any) -> None:
        """See `Filter`."""
        super().__init__(options, use)
        names = _one_of((*NAMES, *self.options.more), self.options.names)
        makers = _one_of((*MAKERS, *self.options.more), self.options.makers)
        self._claims = {
            "another name": re.compile(
                rf"\b(?:I am|I['’]m|[Mm]y name is|[Cc]all me|[Tt]his is|[Yy]ou['’]re "
                rf"(?:talking|chatting|speaking) (?:to|with))"
                rf"(?: (?:actually|just|indeed|also|only))?(?: {_MODEL}{_CALLED},?)? (?P<who>{names})\b"
                rf"|\bI am called (?P<who2>{names})\b|\b[Aa]s (?:{_MODEL}{_CALLED},? )?(?P<who3>{names}), I\b",
            ),
            "another maker": re.compile(
                rf"\b(?:I am|I['’]m|I was|I have been|I['’]ve been|[Aa]s) (?:{_MODEL},? )?"
                rf"(?:(?!not\b|never\b)\w+ ){{0,3}}?"
                rf"(?:that was |which was |that has been )?{_MADE} (?:and \w+ )?by "
                rf"(?:the company |a team at |researchers at )?(?P<who>{makers})\b"
                rf"|\b(?P<who2>{makers}) (?:has )?{_MADE} me\b"
                rf"|\b[Mm]y (?:creators?|makers?|developers?|parent company) (?:is|are)(?: at)? (?P<who3>{makers})\b"
                rf"|\bI(?: am|['’]m) {_MODEL} (?:from|of) (?P<who4>{makers})\b",
            ),
        }

    def judge(self, pieces: Sequence[Piece]) -> Verdict:
        """Of answers alone, and in plain texts of nobody: there an I is anyone's."""
        asked = " ".join(piece.text for piece in pieces if piece.part == "prompt")
        if _ROLE.search(asked):
            return KEEP
        for piece in pieces:
            if piece.part != "completion":
                continue
            text = _QUOTED.sub(" ", piece.text)
            for reason, pattern in self._claims.items():
                match = pattern.search(text)
                if match is not None:
                    return Verdict(reason, next(filter(None, match.groups())))
        return KEEP


def _one_of(names: Sequence[str], own: Sequence[str]) -> str:
    """An expression for names that are not one's own, longer ones first; letter for letter, as a name is written."""
    others = {name for name in names if name.casefold() not in {one.casefold() for one in own}}
    return "|".join(re.escape(name) for name in sorted(others, key=lambda name: (-len(name), name)))
