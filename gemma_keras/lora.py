"""Low-rank adapters of a backbone: attach, choose, switch off, merge, take apart again.

    model.enable_lora(rank=16)              base weights frozen, a float32 adapter beside each projection
    with model.adapters_off(): ...          the model as it was: a reference policy that costs no memory
    model.merge_adapter()                   into the base weights; `unmerge_adapter` restores them bit for bit

Source: Hu et al. 2021, arXiv:2106.09685.
"""

import abc
import contextlib
import copy
import functools
import gc
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Concatenate, ParamSpec, TypeVar

import keras
import numpy as np

from gemma_keras.layers.dropout import mixed_bits
from gemma_keras.layers.projection import Projection
from gemma_keras.lora_options import ALL_LINEAR, LoraOptions

P = ParamSpec("P")
R = TypeVar("R")
_NAME_CHARACTERS = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


class ProgramsOfAdapters:
    """Keras keeps the programs of fit, evaluate and predict; here they last as long as the adapters that they were made
    for.

    A mixin for a Keras model with `adapter_state`. The state is asked when a program is wanted, as adapters may be
    changed through the backbone or through any model around it.
    """

    def make_train_function(self, force=False):
        self._drop_if_old("train_function")
        return super().make_train_function(force)  # type: ignore[misc]

    def make_test_function(self, force=False):
        self._drop_if_old("test_function")
        return super().make_test_function(force)  # type: ignore[misc]

    def make_predict_function(self, force=False):
        self._drop_if_old("predict_function")
        return super().make_predict_function(force)  # type: ignore[misc]

    def _drop_if_old(self, program: str) -> None:
        # That one alone: `evaluate` under `adapters_off` may run in a callback of `fit`.
        state, attribute = self.adapter_state, f"_adapters_of_{program}"  # type: ignore[attr-defined]
        if state != getattr(self, attribute, None):
            setattr(self, program, None)
            setattr(self, attribute, state)


class AdapterHost(ProgramsOfAdapters):
    """What a backbone does with adapters: a mixin for a Keras model that has `projections()`.

    At most one adapter is active; it alone is trainable. Nothing here touches a kernel but `merge_adapter` and
    `unmerge_adapter`.
    """

    # A reward model's head belongs to its adapter and there is one head.
    holds_one_adapter = False

    def _start_without_adapters(self) -> None:
        self._adapter_options: dict[str, LoraOptions] = {}
        self._trainable_before: dict[str, bool] = {}
        self._adapters_are_off = False
        self._active_adapter: str | None = None
        self._kept_kernels: dict[str, np.ndarray] | None = None
        self._adapter_version = 0
        self._dropout_counter: keras.Variable | None = None

    @abc.abstractmethod
    def projections(self) -> dict[str, Projection]:
        """Every projection under its full name, e.g. "layers.0.q_proj"."""

    @property
    def adapters(self) -> dict[str, LoraOptions]:
        """Adapter name → its options."""
        return dict(self._adapter_options)

    @property
    def active_adapter(self) -> str | None:
        """Name of the adapter that takes part in the forward pass, or None."""
        return self._active_adapter

    @property
    def adapter_state(self) -> tuple[str | None, int]:
        """Changes whenever a compiled forward pass would no longer be that of the model."""
        return self._active_adapter, self._adapter_version

    def enable_lora(
        self, rank: int = 8, target_layer_names: Iterable[str] | str | None = None, *, alpha: float | None = None,
        dropout: float = 0.0,
        rank_stabilized: bool = False, name: str = "default", seed: int = 0,
    ) -> None:  # fmt: skip
        """Freeze every weight and put a low-rank path beside the chosen projections; it becomes the active adapter.

        A new adapter changes nothing until it is trained: `b` starts at zero. Further calls with another `name` add
        adapters. Once training has begun `compile` again: `fit` refuses an optimizer that holds state for other
        weights.

        Args:
            rank: r >= 1.
            target_layer_names: "all-linear" (default), or some of q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj,
                down_proj; KerasHub's names ("query", "value", …) are understood.
            alpha, dropout, rank_stabilized: see `LoraOptions`.
            name: of the adapter.
            seed: of `a`, normal with variance 1 / (3 * inputs), the same numbers on every backend.

        Raises:
            ValueError: a value out of range, an unknown target, a name that is taken, or a merged adapter.
        """
        targets = ALL_LINEAR if target_layer_names is None else target_layer_names
        self.add_adapter(name, LoraOptions(rank, alpha, dropout, rank_stabilized, targets), seed)  # type: ignore[arg-type]

    def add_adapter(self, name: str, options: LoraOptions, seed: int = 0) -> None:
        """`enable_lora` from options."""
        self._refuse_now("add an adapter")
        if not name or set(name) - _NAME_CHARACTERS:
            raise ValueError(f"An adapter's name has letters, digits, - and _. Received: name={name!r}")
        if name in self._adapter_options:
            raise ValueError(
                f"There is an adapter {name!r} already. Choose another name, or delete_adapter({name!r}) first"
            )
        if self._adapter_options and self.holds_one_adapter:
            raise ValueError(
                "A reward model has one head and so one adapter. Call delete_adapter first, or load the model again"
            )
        if not self._adapter_options:
            self._trainable_before = {variable.path: variable.trainable for variable in self.variables}  # type: ignore[attr-defined]
        for full_name, projection in self.projections().items():
            if options.applies_to(full_name):
                projection.add_adapter(name, options, seed)
        self._adapter_options[name] = options
        if options.dropout > 0 and self._dropout_counter is None:
            # Counts the training steps of plain `fit`; pipelines pass keys of their own.
            self._tracker.unlock()  # type: ignore[attr-defined]
            self._dropout_counter = keras.Variable(0, dtype="int32", trainable=False, name="dropout_counter")
            self._tracker.lock()  # type: ignore[attr-defined]
        self.set_adapter(name)

    def next_dropout_keys(self, batch):
        """A key for each of `batch` rows, int32 (b,), others at the next call; None while no adapter drops anything."""
        if self._dropout_counter is None:
            return None
        keys = mixed_bits(keras.ops.convert_to_tensor(self._dropout_counter)) + keras.ops.arange(batch, dtype="int32")
        self._dropout_counter.assign_add(1)
        return keys

    def load_own_variables(self, store) -> None:
        """From Keras' own files; one of a model without dropout leaves the counter as it is."""
        if self._dropout_counter is not None and "0" in store.keys():  # noqa: SIM118 - Keras' stores are no mappings
            self._dropout_counter.assign(store["0"])

    def set_adapter(self, name: str | None) -> None:
        """Make one adapter active and trainable and freeze all else; None: the base model alone, frozen.

        Raises:
            ValueError: there is none of that name, or one is merged.
        """
        self._refuse_now("choose another one")
        if name is not None:
            self._require(name)
        for variable in self.variables:  # type: ignore[attr-defined]
            variable.trainable = False
        for projection in self.projections().values():
            for variable in projection.activate(name):
                variable.trainable = True
        self._changed(name)

    @contextlib.contextmanager
    def adapters_off(self) -> Iterator[None]:
        """The base model for a while, without a second copy of it; what is trainable stays as it is."""
        self._refuse_while_merged("switch adapters off")
        active = [(projection, projection.active) for projection in self.projections().values()]
        name, were_off = self._active_adapter, self._adapters_are_off
        self._adapters_are_off = True
        for projection, _ in active:
            projection.active = None
        self._active_adapter = None
        try:
            yield
        finally:
            for projection, adapter in active:
                projection.active = adapter
            self._active_adapter, self._adapters_are_off = name, were_off

    def delete_adapter(self, name: str) -> None:
        """Forget an adapter. With the last one gone the weights that were trainable before the first are so again,
        quantized ones never."""
        self._refuse_now("delete one")
        self._require(name)
        self.set_adapter(None if name == self._active_adapter else self._active_adapter)
        for projection in self.projections().values():
            projection.remove_adapter(name)
        gc.collect()
        del self._adapter_options[name]
        if not self._adapter_options:
            quantized = {
                id(v) for p in self.projections().values() if p.quantization_mode is not None for v in p.variables
            }
            for variable in self.variables:  # type: ignore[attr-defined]
                variable.trainable = id(variable) not in quantized and self._trainable_before.get(variable.path, False)
        self._changed(self._active_adapter)

    def merge_adapter(self) -> None:
        """Add the active adapter to the base kernels and leave its path out; the old kernels are kept on the host.

        Raises:
            ValueError: no adapter is active, one is merged already, or the kernels are quantized and cannot hold the
                sum.
        """
        self._refuse_now("merge")
        if self._active_adapter is None:
            raise ValueError("No adapter is active: nothing to merge. Call set_adapter(name) first")
        adapted = {name: projection for name, projection in self.projections().items() if projection.active is not None}
        quantized = [name for name, projection in adapted.items() if projection.quantization_mode is not None]
        if quantized:
            raise ValueError(
                f"Quantized kernels cannot hold the sum ({quantized[0]} and {len(quantized) - 1} more). Call "
                "save_adapter, then load_adapter and merge_adapter in the model that was not quantized; "
                "save_to_preset writes the sum as well"
            )
        self._kept_kernels = {name: np.array(keras.ops.convert_to_numpy(p.kernel)) for name, p in adapted.items()}
        for projection in adapted.values():
            projection.kernel.assign(projection.effective_kernel())
            projection.active, projection.is_merged = None, True
        self._changed(self._active_adapter)

    def unmerge_adapter(self) -> None:
        """Undo `merge_adapter`: the kept kernels come back bit for bit, and the adapter's path with them.

        Raises:
            ValueError: no adapter is merged.
        """
        if self._kept_kernels is None:
            raise ValueError("No adapter is merged. Call merge_adapter() first")
        projections = self.projections()
        for name, kernel in self._kept_kernels.items():
            projections[name].kernel.assign(kernel)
            projections[name].is_merged = False
            projections[name].activate(self._active_adapter)
        self._kept_kernels = None
        self._changed(self._active_adapter)

    def refuse_training(self) -> None:
        """Raise ValueError where training would move an adapter that takes no part in the forward pass."""
        self._refuse_now("train")

    def _require(self, name: str) -> None:
        if name not in self._adapter_options:
            raise ValueError(f"There is no adapter {name!r}. Known: {', '.join(self._adapter_options) or 'none'}")

    def _refuse_now(self, what: str) -> None:
        self._refuse_while_merged(what)
        if self._adapters_are_off:
            raise ValueError(f"Adapters are off: leave `adapters_off` before you {what}")

    def _refuse_while_merged(self, what: str) -> None:
        if self._kept_kernels is not None:
            raise ValueError(f"Adapter {self._active_adapter!r} is merged: unmerge_adapter() before you {what}")

    def _changed(self, active: str | None) -> None:
        self._active_adapter = active
        self._adapter_version += 1

    def quantize(self, mode: str, config=None, *, quantize_activations: bool = False) -> None:
        """Hold every projection's kernel in 8 or 4 bits, for inference or as the frozen base of an adapter. Embedding
        and norms stay.

        Args:
            mode: "int8" (one scale a column) or "int4" (one scale and zero a column and 128 rows).
            config: a Keras quantization config of that mode; default Keras'.
            quantize_activations: also round what the kernels are multiplied with, as the config says (Keras' int8: 8
                bits a row).

        Raises:
            ValueError: another mode, or kernels that are quantized or merged already.
        """
        if mode not in ("int8", "int4"):
            raise ValueError(f"`mode` must be int8 or int4. Received: mode={mode!r}")
        self._refuse_now("quantize")
        if any(projection.quantization_mode is not None for projection in self.projections().values()):
            raise ValueError("The kernels are quantized already. Load the model again to quantize it otherwise")
        if not quantize_activations:
            # Keras wraps this method and fills in a default, which for int8 has activations in it: ours and the user's
            # look alike.
            config = copy.copy(config)
            config.activation_quantizer = None
        for projection in self.projections().values():
            projection.quantize(mode, config=config)
        gc.collect()
        self._changed(self._active_adapter)


def _handed_on(method: Callable[Concatenate[Any, P], R]) -> Callable[Concatenate[Any, P], R]:
    """A method of a task model that is its backbone's, under the same signature and documentation."""

    @functools.wraps(method)
    def call(self: Any, *arguments: P.args, **options: P.kwargs) -> R:
        return getattr(self.backbone, method.__name__)(*arguments, **options)

    return call


class AdaptedModel(ProgramsOfAdapters):
    """A mixin for a Keras model with a `backbone`, which holds the adapters. Layers above it, such as a reward head,
    stay trainable."""

    backbone: Any
    optimizer: Any
    trainable_variables: list

    enable_lora = _handed_on(AdapterHost.enable_lora)
    add_adapter = _handed_on(AdapterHost.add_adapter)
    set_adapter = _handed_on(AdapterHost.set_adapter)
    delete_adapter = _handed_on(AdapterHost.delete_adapter)
    merge_adapter = _handed_on(AdapterHost.merge_adapter)
    unmerge_adapter = _handed_on(AdapterHost.unmerge_adapter)
    adapters_off = _handed_on(AdapterHost.adapters_off)
    quantize = _handed_on(AdapterHost.quantize)

    @property
    def adapters(self) -> dict[str, LoraOptions]:
        """Adapter name → its options."""
        return self.backbone.adapters

    @property
    def active_adapter(self) -> str | None:
        """Name of the adapter that takes part in the forward pass, or None."""
        return self.backbone.active_adapter

    @property
    def adapter_state(self) -> tuple[str | None, int]:
        """See `AdapterHost.adapter_state`."""
        return self.backbone.adapter_state

    def make_train_function(self, force=False):
        """As Keras'; an optimizer that holds state for other weights would apply it to the wrong ones.

        Raises:
            ValueError: the adapters changed since the optimizer was built, or one is merged.
        """
        self.backbone.refuse_training()
        optimizer = getattr(self.optimizer, "inner_optimizer", self.optimizer)
        if optimizer is not None and optimizer.built:
            known, trainable = (
                {id(v) for v in found} for found in (optimizer._trainable_variables, self.trainable_variables)
            )
            if known != trainable:
                raise ValueError(
                    f"The optimizer holds state for {len(known)} weights, but other ones are trainable now "
                    f"({len(trainable)}): an adapter was added, chosen or removed since, or the kernels were "
                    "quantized. Call compile() with a new optimizer"
                )
        return super().make_train_function(force)
