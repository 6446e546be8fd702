"""In which dtype a model is held that is not trained."""

import keras


def frozen_dtype(dtype: str) -> str | keras.dtype_policies.DTypePolicyMap:
    """The policy that computes the same numbers as `dtype` in less memory, for a model whose weights stay.

    `mixed_bfloat16` keeps float32 weights for the optimizer's sake and rounds them wherever it computes; here they are
    rounded once, as they are loaded. The scales of norms, which are computed with in float32, stay so.
    """
    if dtype != "mixed_bfloat16":
        return dtype
    policies = keras.dtype_policies.DTypePolicyMap("bfloat16")
    policies[".*norm"] = keras.DTypePolicy("mixed_bfloat16")
    return policies
