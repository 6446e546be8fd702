"""A Gemma of ours as lm-eval's model `gemma_keras`, on whatever backend Keras runs.

lm-eval gives texts and counts; here they become ids, are read in batches that share what they can, and come back as
log-probabilities and answers.

Departures from lm-eval's own `hf`: rolling text begins with one bos, where `hf` gives a Gemma two (its issue 3333); no
text of a benchmark becomes a control id; a context shared by choices is read once; an answer ends with its text.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from gemma_keras import GemmaCausalLM
from gemma_keras.sampling import Sampler
from pipelines.engines.lm_eval.marked_turns import encode_marked, marked_turns, without_marks
from pipelines.host.errors import ConfigError
from pipelines.host.parts import Keep, compute_now
from pipelines.sampling.answers_until import Question, UntilGenerator
from pipelines.sampling.continuation_batches import Continuation
from pipelines.sampling.continuations import ContinuationScorer, Likelihoods

DEFAULT_NEW_TOKENS = 256
"""Of an answer where the task does not say, as of lm-eval's `hf`."""
Advance = Callable[[int, int], None]


@register_model("gemma_keras")
class GemmaKerasLM(TemplateLM):
    """lm-eval's model over a `GemmaCausalLM`.

    Args:
        pretrained: folder, `.gguf` file or hub id; or the model itself.
        dtype: a Keras dtype or policy, of a model that is loaded here.
        batch_tokens: positions of a forward pass, from which the rows follow.
        max_length: tokens of a context and what follows it; default what the model was made for. Longer contexts lose
            their beginning.
        seed: of sampled answers.
        batch_size, max_batch_size, device: what lm-eval's command passes; `batch_tokens` and the backend decide.

    Attributes:
        keep: from JSON of all that is asked and decides about its parts to what keeps them, for when this is
            interrupted. advance: told of requests done and tokens. cut: contexts that lost their beginning so far.
    """

    def __init__(
        self,
        pretrained: Any,
        dtype: Any = None,
        batch_tokens: int = 8192,
        max_length: int | None = None,
        seed: int = 0,
        batch_size: Any = None,
        max_batch_size: Any = None,
        device: Any = None,
    ) -> None:
        super().__init__()
        del batch_size, max_batch_size, device
        is_named = isinstance(pretrained, str)
        self.model = GemmaCausalLM.from_preset(pretrained, dtype=dtype) if is_named else pretrained
        if self.model.tokenizer is None:
            raise ConfigError(f"{pretrained!s:.100} has no tokenizer, and benchmarks are texts")
        self.tokenizer = self.model.tokenizer
        self.name = pretrained if is_named else "gemma_keras"
        self.max_length = int(max_length or self.model.config.context_length)
        self.keep: Callable[[str, Any], Keep] = lambda kind, work: compute_now
        self.advance: Advance = lambda requests, tokens: None
        self.cut = 0
        self._has_turns = False
        self._settings = {"batch_tokens": int(batch_tokens), "max_length": self.max_length, "seed": int(seed)}
        self._scorer = ContinuationScorer(self.model, int(batch_tokens), self.max_length)
        self._generator = UntilGenerator(self.model, int(batch_tokens), self.max_length, int(seed))

    # --- texts and ids

    @property
    def eot_token_id(self) -> int:
        """End of sequence."""
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        """Before a text without a context: bos."""
        return self.tokenizer.bos_token_id

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Ids of a text, bos before it unless `add_special_tokens` is False. In conversations (`apply_chat_template`)
        marks become control ids; otherwise they are text like any other."""
        ids = encode_marked(self.tokenizer, string) if self._has_turns else self.tokenizer.encode(string)
        return ids if add_special_tokens is False else [self.prefix_token_id, *ids]

    @property
    def tokenizer_name(self) -> str:
        """For lm-eval's own caches of requests."""
        return str(self.name).replace("/", "__")

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The template's text, which lm-eval records."""
        return self.tokenizer.chat_template if chat_template else None

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """A conversation as `marked_turns`; from now on texts are read as those."""
        self._has_turns = True
        return marked_turns(chat_history, add_generation_prompt)

    # --- what lm-eval asks

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Of each (context, continuation) the log-probability and whether greedy decoding would give it."""
        asked = [self._continuation(one) for one in requests]
        return self._answers(asked, self._scored("loglikelihood", asked))

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        asked = [Continuation(context, ids, tuple(context)) for _, context, ids in requests]
        return self._answers(asked, self._scored("tokens", asked))

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """The log-probability of each whole text after bos; one longer than the model reads is cut into windows, in
        which each token is predicted once."""
        asked, owners = [], []
        for number, one in enumerate(requests):
            ids = self.tok_encode(one.args[0], add_special_tokens=False)
            windows = get_rolling_token_windows(ids, self.prefix_token_id, self.max_length, context_len=1)
            for context, window in map(make_disjoint_window, windows):
                asked.append(Continuation(context, window))
                owners.append(number)
        totals = [0.0] * len(requests)
        for number, value in zip(owners, self._scored("rolling", asked).log_probs, strict=True):
            totals[number] += float(value)
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """An answer to each context, which ends before the first of its texts."""
        seen: Counter[Any] = Counter()
        asked = []
        for number, one in enumerate(requests):
            context, options = one.args
            place = (one.task_name or "", number if one.doc_id is None else one.doc_id, one.idx)
            asked.append(self._question(context, options, (*place, seen[place]), one.task_name))
            seen[place] += 1
        texts, cut = self._generator(asked, self._keep_for("generate", asked), self.advance)
        self.cut += cut
        return texts

    # --- inside

    def _continuation(self, one: Instance) -> Continuation:
        context, continuation = one.args
        if self._has_turns:
            continuation = without_marks(continuation)
        if context:
            before, after = self._encode_pair(context, continuation)
        else:
            before, after = [self.prefix_token_id], self.tok_encode(continuation, add_special_tokens=False)
        return Continuation(before, after, one.doc_id, one.task_name)

    def _question(
        self, context: str, options: Mapping[str, Any], key: tuple[int | str, ...], group: str | None
    ) -> Question:
        found = normalize_gen_kwargs(dict(options), DEFAULT_NEW_TOKENS)
        until = tuple(text for text in found["until"] if text)
        is_sampled = found["do_sample"]
        sampler = Sampler(
            # Sampling without a temperature is sampling at 1, as in `transformers`.
            (options.get("temperature", 1.0) if is_sampled else 0.0),
            (found.get("top_k") or None) if is_sampled else None,
            found.get("top_p") if is_sampled else None,
        )
        return Question(self.tok_encode(context), until, found["max_gen_toks"], sampler, key, group)

    def _scored(self, kind: str, asked: Sequence[Continuation]) -> Likelihoods:
        real = [one for one in asked if len(one.ids)]
        found = self._scorer(real, self._keep_for(kind, real), self.advance)
        self.cut += found.cut
        return found

    def _answers(self, asked: Sequence[Continuation], found: Likelihoods) -> list[tuple[float, bool]]:
        """In the order of what was asked; nothing at all is certain."""
        answers = zip(found.log_probs.tolist(), found.is_greedy.tolist(), strict=True)
        return [next(answers) if len(one.ids) else (0.0, True) for one in asked]

    def _keep_for(self, kind: str, asked: Sequence[Continuation] | Sequence[Question]) -> Keep:
        return self.keep(kind, {**self._settings, "asked": [dataclasses.astuple(one) for one in asked]})
