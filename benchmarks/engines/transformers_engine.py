"""transformers' Gemma on PyTorch: a plain training loop and `generate`, with its fastest attention and optimizer."""

import peft
import torch
from transformers import GemmaConfig, GemmaForCausalLM

from benchmarks.engines.inputs import expect_shape, token_ids, training_rows
from benchmarks.worker import serve_function


def serve(case, stopwatch) -> None:
    """Build the model and serve samples."""
    model = build(case)
    sample = {"train": training, "generate": generation}[case.kind](case, model)
    serve_function(sample, stopwatch, parameters=sum(parameter.numel() for parameter in model.parameters()))


def build(case) -> GemmaForCausalLM:
    """The model of the case with random weights, no token of which ends a text."""
    torch.manual_seed(0)
    size = case.size
    config = GemmaConfig(
        vocab_size=size.vocabulary_size,
        num_hidden_layers=size.num_layers,
        num_attention_heads=size.num_query_heads,
        num_key_value_heads=size.num_key_value_heads,
        hidden_size=size.hidden_dim,
        intermediate_size=size.intermediate_dim,
        head_dim=size.head_dim,
        attn_implementation="sdpa",
        eos_token_id=None,
        dtype="float32",
    )
    model = GemmaForCausalLM(config).float()
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    if case.lora_rank:
        model = peft.get_peft_model(
            model, peft.LoraConfig(r=case.lora_rank, lora_alpha=case.lora_rank, target_modules=["q_proj", "v_proj"])
        )
    return model


def training(case, model):
    """A function that runs `case.steps` steps of AdamW."""
    optimizer = torch.optim.AdamW(
        [parameter for parameter in model.parameters() if parameter.requires_grad], lr=1e-4, fused=True
    )
    rows = torch.from_numpy(training_rows(case)).long()
    mask = torch.ones_like(rows)
    model.train()

    def sample():
        for start in range(0, len(rows), case.batch_size):
            ids = rows[start : start + case.batch_size]
            loss = model(input_ids=ids, attention_mask=mask[: len(ids)], labels=ids, use_cache=False).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        loss.item()

    return sample


def generation(case, model):
    """A function that samples `case.new_tokens` a prompt."""
    ids = torch.from_numpy(token_ids(case, case.batch_size, case.prompt_length)).long()
    mask = torch.ones_like(ids)
    model.eval()

    def sample():
        with torch.inference_mode():
            output = model.generate(
                input_ids=ids,
                attention_mask=mask,
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                max_new_tokens=case.new_tokens,
            )
        expect_shape(output.shape, (case.batch_size, case.prompt_length + case.new_tokens))

    return sample
