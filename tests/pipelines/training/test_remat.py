"""The key `remat` of a training stage."""

import pytest
from pydantic import ValidationError
from stage_fixture import stage_config

from gemma_keras import GemmaBackbone, GemmaCausalLM, GemmaRewardModel
from pipelines.training.adapters import attach


@pytest.mark.parametrize("make", [GemmaCausalLM, GemmaRewardModel])
@pytest.mark.parametrize("lora", [None, {"rank": 2}])
def test_a_stage_recomputes_the_blocks_of_its_model_where_it_is_asked_to(tiny_configs, make, lora):
    model = make(GemmaBackbone(tiny_configs["gemma"]))
    for options, expected in (({"remat": "block"}, "block"), ({}, "none")):
        attach(model, stage_config("instruction_tuning", data={"path": "x"}, **options), seed=3)
        assert model.backbone.remat == expected
    attach(model, stage_config("instruction_tuning", data={"path": "x"}, lora=lora, remat="block"), seed=3)
    assert model.backbone.remat == "block"
    assert (model.active_adapter is None) == (lora is None)


def test_another_word_is_refused():
    with pytest.raises(ValidationError, match="Input should be 'none' or 'block'"):
        stage_config("instruction_tuning", data={"path": "x"}, remat="full")
