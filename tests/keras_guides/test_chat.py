"""The guides that keep a conversation: gemma_chat, Keras_Quickstart_Chat, Guess_the_word and Agentic_AI.

All of them write turn marks into one string. That string is plain text here, with a warning; what was meant is a list
of messages, which `from_marked_text` makes of a trusted string.
"""

import re

import guide_values
import numpy as np
import pytest

from gemma_keras import from_marked_text
from gemma_keras.errors import InputError
from gemma_keras.models import GemmaCausalLM

USER, MODEL, END = "<start_of_turn>user\n", "<start_of_turn>model\n", "<end_of_turn>\n"
LENGTH = 96


class MarkedChat:
    """A history of marked texts, as the notebooks keep it."""

    def __init__(self, model, system=""):
        self.model, self.system, self.history = model, system, []

    def full_prompt(self):
        prompt = "".join(self.history) + MODEL
        return f"{self.system}\n{prompt}" if self.system else prompt

    def send_message(self, message):
        self.history.append(USER + message + END)
        prompt = self.full_prompt()
        response = self.model.generate(prompt, max_length=2048)
        result = response.replace(prompt, "")
        self.history.append(MODEL + result)
        return result


class MessageChat:
    """The same with messages."""

    def __init__(self, model):
        self.model, self.history = model, []

    def send_message(self, message, max_length=LENGTH):
        self.history.append({"role": "user", "content": message})
        result = self.model.generate(self.history, max_length=max_length)
        self.history.append({"role": "model", "content": result})
        return result


@pytest.fixture(scope="module")
def gemma_lm(presets):
    model = GemmaCausalLM.from_preset(presets["gemma2_instruct_2b_en"])
    model.compile(sampler="greedy")
    return model


@pytest.fixture
def talking(gemma_lm, monkeypatch):
    """A model that says what a list holds, and keeps what it was asked."""
    asked = []

    def generate(prompt, max_length):
        asked.append(prompt)
        return prompt + f"answer {len(asked)}"

    monkeypatch.setattr(gemma_lm, "generate", generate)
    return gemma_lm, asked


def test_gemma_chat(gemma_lm):
    message = "Hello, my name is Anna."
    chat = MarkedChat(gemma_lm)
    chat.history.append(USER + message + END)
    prompt = chat.full_prompt()
    with pytest.warns(UserWarning, match="<start_of_turn> is written out in the text.*from_marked_text") as caught:
        response = gemma_lm.generate(prompt, max_length=LENGTH)
    assert [each.filename for each in caught if "written out" in str(each.message)] == [__file__]
    plain = [2, *gemma_lm.tokenizer.encode(prompt)]
    assert gemma_lm.tokenizer.start_of_turn_id not in plain and response.startswith(prompt)
    # The guide cuts its prompt out of the answer.
    said = guide_values.response_ids(gemma_lm, plain, max_length=LENGTH)
    assert response.replace(prompt, "") == gemma_lm.tokenizer.decode(said)
    # What was meant.
    messages = from_marked_text(prompt)
    assert messages == [{"role": "user", "content": message}]
    ids = guide_values.asked_ids(gemma_lm.tokenizer, [("user", message)])
    assert len(ids) < len(plain) - 20
    said = guide_values.response_ids(gemma_lm, ids, max_length=LENGTH)
    assert gemma_lm.generate(messages, max_length=LENGTH) == gemma_lm.tokenizer.decode(said)
    assert guide_values.shortfall(gemma_lm, ids, said).max() < 1e-4


def test_keras_quickstart_chat(gemma_lm):
    chat = MessageChat(gemma_lm)
    first = chat.send_message("what is Keras?", max_length=48)
    chat.send_message("and the universe?", max_length=192)
    spoken = [("user", "what is Keras?"), ("model", first.strip()), ("user", "and the universe?")]
    ids = guide_values.asked_ids(gemma_lm.tokenizer, spoken)
    said = guide_values.response_ids(gemma_lm, ids, max_length=192)
    assert [message["role"] for message in chat.history] == ["user", "model"] * 2
    assert chat.history[-1]["content"] == gemma_lm.tokenizer.decode(said)
    assert guide_values.shortfall(gemma_lm, ids, said).max() < 1e-4


def test_a_marked_history_asks_what_a_history_of_messages_does(talking):
    model, asked = talking
    chat = MarkedChat(model)
    for message in ("one", "two"):
        chat.send_message(message)
    assert asked[1] == f"{USER}one{END}{MODEL}answer 1{USER}two{END}{MODEL}"
    # The notebooks leave it to the model to end its turn; in text it never does, so the history has to.
    ended = asked[1].replace("answer 1", f"answer 1{END}")
    expected = [("user", "one"), ("model", "answer 1"), ("user", "two")]
    assert [(message["role"], message["content"].strip()) for message in from_marked_text(ended)] == expected


def test_a_marked_history_with_an_open_turn_is_refused():
    with pytest.raises(InputError, match="not ended"):
        from_marked_text(f"{USER}one{END}{MODEL}answer 1{USER}two{END}{MODEL}")


def test_instructions_before_the_first_turn_belong_into_it(talking):
    model, asked = talking
    MarkedChat(model, system="You sell cars.").send_message("one")
    with pytest.raises(InputError, match="nothing between them. Received: 'You sell cars."):
        from_marked_text(asked[0])


def test_guess_the_word(presets, float_type):
    float_type("bfloat16")
    gemma_lm = GemmaCausalLM.from_preset(presets["gemma2_instruct_2b_en"])
    gemma_lm.compile(sampler="top_k")
    chat = MessageChat(gemma_lm)
    answer = "halva"
    text = chat.send_message(f'Describe the word "{answer}" without saying it.')
    assert [message["role"] for message in chat.history] == ["user", "model"]
    hidden = re.compile(re.escape(answer), re.IGNORECASE).sub("XXXX", text)
    assert answer not in hidden.lower()
    ids = guide_values.asked_ids(gemma_lm.tokenizer, [("user", chat.history[0]["content"])])
    found = guide_values.response_ids(gemma_lm, ids, max_length=LENGTH)
    logits = guide_values.logits(gemma_lm, [*ids, *found][:-1])[len(ids) - 1 :]
    # The fifth of its step or better, to the accuracy of bfloat16.
    assert (logits[np.arange(len(found)), found] > np.sort(logits, axis=-1)[:, -5] - 0.05).all()


def test_agentic_ai(gemma_lm):
    """Tools described in a turn, a call and its result as further turns: six marks in one string."""
    tools = "You have a tool: `get_person_info(name)`.\n"
    end = "<end_of_turn>"  # no newline after it, where the notebook goes on at once
    example = (
        f"{USER}{tools}Write a poem.{end}{MODEL}Action: `get_person_info` of Anna{end}{USER}result: Anna{end}{MODEL}"
    )
    messages = from_marked_text(example)
    spoken = [
        ("user", f"{tools}Write a poem."),
        ("model", "Action: `get_person_info` of Anna"),
        ("user", "result: Anna"),
    ]
    assert [(message["role"], message["content"]) for message in messages] == spoken
    ids = guide_values.asked_ids(gemma_lm.tokenizer, spoken)
    said = guide_values.response_ids(gemma_lm, ids, max_length=len(ids) + 8)
    assert gemma_lm.generate(messages, max_length=len(ids) + 8) == gemma_lm.tokenizer.decode(said)
    assert guide_values.shortfall(gemma_lm, ids, said).max() < 1e-4
