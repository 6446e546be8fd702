"""Shapes in types: `log_probs: Float[Array, "b t"]` is a float array of b rows and t columns.

The names are jaxtyping's where that is installed, as it is for the tests, which check every call of the formulas
against them. Elsewhere they say what they say and do nothing.

    b rows, responses    t time    p prompts    k responses a prompt    n pairs, values    v vocabulary    ... any shape
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import Annotated as Bool
    from typing import Annotated as Float
else:
    try:
        from jaxtyping import Bool, Float
    except ModuleNotFoundError:

        class _Unchecked:
            def __class_getitem__(cls, item):
                return Any

        Bool = Float = _Unchecked

Array = Any
"""An array of any library: NumPy's, or a backend's."""

Scalar = Float[Array, ""] | float | int
"""A number, as an array of no dimension or as Python's."""
