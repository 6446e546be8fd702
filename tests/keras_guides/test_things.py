"""Each thing that KerasHub's guides and the notebooks do with Gemma, and the test that does it here.

Left out, with the reasons on the page docs/coming_from_keras_hub.md: TensorBoard, pydot, float8, `model.input` and
`layer.output` of a functional model.
"""

import re

import pytest

pytestmark = pytest.mark.no_backend

GUIDES = "tests/keras_guides/"
THINGS = {
    # What a model is opened with
    "names of presets": "tests/model/checkpoints/test_hub_names.py",
    "a name in Python": "tests/model/test_from_preset.py::test_names_and_handles_open_in_python",
    "a name in a workflow": "tests/model/test_from_preset.py::test_names_open_in_the_workflow",
    "Gemma3CausalLM and the like": "tests/model/test_from_preset.py::test_keras_hubs_names_are_the_one_implementation",
    "KerasHub's presets, both ways": "tests/parity/test_keras_hub.py::test_presets_go_both_ways",
    "KerasHub's models, both ways": "tests/parity/test_keras_hub.py::test_logits_and_weights_go_both_ways",
    "KerasHub opening our folder": GUIDES + "test_side_by_side.py::test_generate_and_score_and_the_loss_of_fit",
    "dtype='bfloat16'": GUIDES + "test_inference.py::test_keras_inference",
    "set_floatx": "tests/model/test_text_generation.py"
    "::test_half_precision_as_keras_float_type_generates_what_the_explicit_type_does",
    "set_dtype_policy": GUIDES + "test_lora_tuning.py::test_lora_on_marked_texts_in_bfloat16",
    "a preprocessor in from_preset": GUIDES + "test_lora_tuning.py::test_a_preprocessor_is_handed_to_from_preset",
    "summary": GUIDES + "test_lora_tuning.py::test_lora_tuning",
    # Text
    "turn marks in text": GUIDES + "test_chat.py::test_gemma_chat",
    "a history": GUIDES + "test_chat.py::test_keras_quickstart_chat",
    "tokenizer methods": "tests/model/test_keras_hub_names.py::test_the_tokenizer_answers_under_kerashubs_names",
    "from_preset of a tokenizer": GUIDES + "test_callbacks.py::test_custom_vocabulary_in_the_tokenizer",
    "model.preprocessor": "tests/model/test_preprocessor.py::test_a_text_becomes_positions_next_tokens_and_weights",
    "generate_preprocess": "tests/model/test_preprocessor.py::test_prompts_to_arrays_and_arrays_to_text",
    "sequence_length": "tests/model/test_preprocessor.py"
    "::test_the_preprocessors_length_and_cut_are_what_fit_and_generate_go_by",
    "long rows": "tests/model/test_preprocessor.py::test_long_rows_are_refused_or_cut",
    "infilling": GUIDES + "test_code_gemma.py::test_the_gap_between_two_texts",
    # Training
    "SparseCategoricalCrossentropy and weighted_metrics": GUIDES + "test_lora_tuning.py::test_lora_tuning",
    "prompts and responses": "tests/model/test_causal_lm_fit.py"
    "::test_pairs_of_every_kind_give_the_loss_of_the_response_alone",
    "strings, tf.data of strings": "tests/model/test_causal_lm_fit.py::test_text_of_every_kind_gives_the_same_loss",
    "fit(x, y, sample_weight), tf.data of triples": "tests/model/test_preprocessor.py"
    "::test_fit_takes_triples_as_arrays_and_as_data_sets",
    "repeat and steps_per_epoch": "tests/model/test_preprocessor.py"
    "::test_a_data_set_without_end_is_read_as_far_as_it_is_used",
    "validation_split, evaluate(return_dict)": GUIDES
    + "test_keras_options.py::test_rows_held_out_by_their_share_and_results_by_name",
    "AdamW, exclude_from_weight_decay": GUIDES + "test_lora_tuning.py::test_the_bakery_s_inquiries",
    "EMA": GUIDES + "test_keras_options.py::test_a_moving_average_lies_between_the_steps",
    "clipnorm": GUIDES + "test_keras_options.py::test_a_clipped_step_has_the_length_of_the_clip",
    "gradient accumulation": GUIDES + "test_keras_options.py::test_accumulated_gradients_are_one_step_of_their_mean",
    "schedules": GUIDES + "test_keras_options.py::test_a_schedule_that_ends_at_zero_stands_still",
    "eager, jit_compile=False": GUIDES + "test_keras_options.py::test_how_a_step_is_run_changes_no_value",
    "steps_per_execution": GUIDES + "test_keras_options.py::test_two_steps_in_one_execution",
    "custom loss": "tests/model/test_causal_lm_fit.py::test_a_users_loss_and_metric_see_full_logits_with_one_warning",
    "mixed_float16 with loss scaling": GUIDES + "test_keras_options.py::test_float16_scales_its_loss",
    "callbacks that generate": GUIDES + "test_callbacks.py::test_custom_vocabulary_and_translator",
    "predict on text": "tests/model/test_preprocessor.py::test_predict_takes_text",
    "a reward model's fit": "tests/model/test_reward_fit.py::test_loss_and_accuracy_are_those_of_bradley_and_terry",
    # Adapters
    "enable_lora": GUIDES + "test_lora_tuning.py::test_lora_tuning",
    "int8 and LoRA and SGD": GUIDES + "test_lora_tuning.py::test_qlora",
    "int4": "tests/model/test_lora_in_keras.py::test_what_was_frozen_before_is_frozen_after",
    "save_lora_weights": "tests/model/test_keras_hub_names.py::test_an_adapter_goes_through_one_file",
    ".lora.h5": "tests/model/test_keras_hub_names.py::test_an_adapter_file_of_kerashub_gives_kerashubs_logits",
    "load_weights after LoRA": "tests/model/test_lora_in_keras.py::test_weights_of_a_plain_model_load_under_an_adapter",
    # Backbone
    "constructor arguments": "tests/model/test_keras_hub_names.py::test_the_arguments_of_kerashub_make_kerashubs_model",
    "get_layer, transformer_layers, reverse=True": "tests/model/test_keras_hub_names.py"
    "::test_blocks_are_found_by_kerashubs_names_and_embeddings_work_both_ways",
    "get_layout_map": GUIDES + "test_distributed.py::test_every_kernel_is_split_by_the_layout_map",
    "DTypePolicyMap": "tests/model/test_keras_hub_names.py::test_a_policy_map_is_kept",
    "call in a functional model": GUIDES + "test_classifiers.py::test_shieldgemma",
    "score(token_ids, padding_mask)": "tests/model/test_keras_hub_names.py"
    "::test_score_under_kerashubs_signature_gives_logits_and_losses",
    "layer_intercept_fn": "tests/model/test_keras_hub_names.py"
    "::test_an_intercept_sees_embeddings_and_every_block_and_changes_what_follows",
    # Generating
    "samplers by their names and arguments": "tests/model/test_sampling.py"
    "::test_keras_hubs_sampler_classes_are_functions_to_a_sampler",
    "KerasHub's sampler objects": "tests/model/test_sampling.py::test_keras_hubs_sampler_objects_are_taken",
    "beam search": "tests/model/test_sampling.py::test_other_samplers_are_refused_with_what_to_use",
    "two calls, set_random_seed": "tests/model/test_text_generation.py"
    "::test_without_a_seed_every_call_draws_anew_and_keras_seed_repeats_it",
    "ids come back right-padded": GUIDES + "test_inference.py::test_generate_without_text",
    # Files
    "ModelCheckpoint, load_model, fit": "tests/model/test_keras_files.py"
    "::test_fit_goes_on_bit_for_bit_from_the_file_of_a_checkpoint",
    "export": "tests/model/test_keras_files.py::test_an_exported_model_gives_the_logits_at_any_size",
    "save_weights, from_config, clone_model": GUIDES
    + "test_keras_options.py::test_weights_and_configurations_make_the_same_model",
}


@pytest.mark.parametrize("thing", THINGS)
def test_there_is_a_test(repository, thing):
    file, _, name = THINGS[thing].partition("::")
    text = (repository / file).read_text(encoding="utf-8")
    assert re.search(rf"^def {name or 'test_'}", text, re.MULTILINE), THINGS[thing]
