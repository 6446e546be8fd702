"""transformers' Gemma on PyTorch: a plain training loop and `generate`, with its fastest attention and optimizer."""

import peft
import torch
from transformers import AutoModelForCausalLM, GemmaConfig, GemmaForCausalLM

from benchmarks import real_model
from benchmarks.engines.inputs import expect_shape, gradient_like, token_ids, training_rows
from benchmarks.worker import serve_function


def serve(case, stopwatch) -> None:
    """Build the model and serve samples."""
    model = build(case)
    sample = {"train": training, "generate": generation, "update": update}[case.kind](case, model, stopwatch)
    serve_function(sample, stopwatch, parameters=sum(parameter.numel() for parameter in model.parameters()))


def config_of(size, **changes) -> GemmaConfig:
    """transformers' configuration of a `ModelSize`."""
    return GemmaConfig(
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
        **changes,
    )


def build(case):
    """The model of the case with random weights, or the published ones, no token of which ends a text."""
    torch.manual_seed(0)
    dtype = torch.bfloat16 if case.dtype == "bfloat16" else torch.float32
    if case.real_model:
        model = AutoModelForCausalLM.from_pretrained(real_model.folder(), dtype=dtype, attn_implementation="sdpa")
    else:
        model = GemmaForCausalLM(config_of(case.size)).to(dtype)
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    if case.lora_rank:
        model = peft.get_peft_model(
            model, peft.LoraConfig(r=case.lora_rank, lora_alpha=case.lora_rank, target_modules=["q_proj", "v_proj"])
        )
    return model


def training(case, model, stopwatch):
    """A function that runs `case.steps` steps of AdamW, and one on the odd rows."""
    optimizer = torch.optim.AdamW(
        [parameter for parameter in model.parameters() if parameter.requires_grad], lr=1e-4, fused=True
    )
    rows = torch.from_numpy(training_rows(case)).long()
    mask = torch.ones_like(rows)
    autocast = torch.autocast(rows.device.type, dtype=torch.bfloat16, enabled=case.dtype == "mixed_bfloat16")
    model.train()

    def sample():
        for start in range(0, len(rows), case.batch_size):
            ids = rows[start : start + case.batch_size]
            with autocast:
                loss = model(input_ids=ids, attention_mask=mask[: len(ids)], labels=ids, use_cache=False).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            loss.item()
            stopwatch.lap()

    return sample


def generation(case, model, stopwatch):
    """A function that samples `case.new_tokens` a prompt."""
    ids = torch.from_numpy(token_ids(case, case.batch_size, case.prompt_length)).long()
    mask = torch.ones_like(ids)
    sampling = {"temperature": case.temperature, "top_k": case.top_k or 0, "top_p": case.top_p or 1.0}
    model.eval()

    def sample():
        with torch.inference_mode():
            output = model.generate(
                input_ids=ids, attention_mask=mask, do_sample=True, max_new_tokens=case.new_tokens, **sampling
            )
        expect_shape(output.shape, (case.batch_size, case.prompt_length + case.new_tokens))

    return sample


def update(case, model, stopwatch):
    """A function that runs `case.steps` clipped steps of the fused AdamW, without a guard."""
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)
    values = [gradient_like(parameter.shape) for parameter in parameters]

    def sample():
        for _ in range(case.steps):
            for parameter, value in zip(parameters, values, strict=True):
                parameter.grad = torch.from_numpy(value.copy())
            stopwatch.begin()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0).item()
            optimizer.step()
            stopwatch.lap()

    return sample
