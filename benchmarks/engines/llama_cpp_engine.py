"""llama.cpp on the published model, one prompt at a time: its Python package generates no batches."""

import os

import llama_cpp

from benchmarks import real_model
from benchmarks.engines.inputs import token_ids
from benchmarks.worker import serve_function


def serve(case, stopwatch) -> None:
    """Open the model in bfloat16 and serve samples."""
    length = case.prompt_length + case.new_tokens
    model = llama_cpp.Llama(
        str(real_model.gguf_file()), n_ctx=length, n_threads=os.cpu_count(), n_threads_batch=os.cpu_count(),
        verbose=False,
    )  # fmt: skip
    prompt = token_ids(case, 1, case.prompt_length)[0].tolist()
    sampling = {"temp": case.temperature, "top_k": case.top_k or 0, "top_p": case.top_p or 1.0, "min_p": 0.0}

    def sample():
        model.reset()
        # The generator ends at no token: only its reader does.
        stream = model.generate(prompt, repeat_penalty=1.0, **sampling)
        for _ in range(case.new_tokens):
            next(stream)

    serve_function(sample, stopwatch, parameters=None)
