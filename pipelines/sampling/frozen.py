"""In which dtype a model is held that is not trained."""

from pipelines.schema.base import DtypePolicy


def frozen_dtype(dtype: DtypePolicy | str) -> str:
    """The policy that computes the same numbers as `dtype` in less memory, for a model whose weights stay.

    `mixed_bfloat16` keeps float32 weights for the optimizer's sake and rounds them wherever it computes; here they are
    rounded once, as they are loaded.
    """
    return "bfloat16" if dtype == "mixed_bfloat16" else dtype
