"""The decoder without its head: token ids, positions and segments to hidden states."""

import dataclasses
from collections.abc import Iterator

import keras
import numpy as np
from keras import ops

from gemma_keras import backends, presets
from gemma_keras.checkpoints.keras_hub_config import config_of_arguments
from gemma_keras.config import GemmaConfig
from gemma_keras.distribution import layout_map
from gemma_keras.initializers import FirstWeights, RandomWeights
from gemma_keras.layers.decoder_block import DecoderBlock
from gemma_keras.layers.direct_call import direct_call
from gemma_keras.layers.embedding import TokenEmbedding
from gemma_keras.layers.masks import check_padding_mask, positions_from_padding, visible_keys
from gemma_keras.layers.projection import Projection
from gemma_keras.layers.rms_norm import RMSNorm
from gemma_keras.layers.rotary import rotary_tables
from gemma_keras.lora import AdapterHost
from gemma_keras.lora_options import LoraOptions

REMAT = ("none", "block")


@keras.saving.register_keras_serializable(package="gemma_keras")
class GemmaBackbone(AdapterHost, keras.Model):
    """Gemma 1, 2 or 3 (text) up to the final norm.

    Args:
        config: `GemmaConfig`; or None, with the arguments of KerasHub's `GemmaBackbone` or `Gemma3Backbone` by name.
        dtype: a Keras dtype, policy or policy map; default Keras' global policy. "mixed_bfloat16" computes in bfloat16
            over float32 weights.
        seed: of random initial weights, the same numbers on every backend; None for zeros.
        weights: where initial weights come from otherwise, e.g. `LoadedWeights` of a checkpoint.
        remat: "block" keeps of each decoder block but its input for the backward pass, which computes the rest again:
            less memory for about a third more time. "none" keeps all. May be set later as an attribute, before the
            model is compiled.

    Call: a dict of
        token_ids: int (b, t).
        padding_mask: bool (b, t), True is a real token, padding on either side; default all True.
        positions: int (b, t), within a segment one more than at the place before, see `reference.causal_attention`;
            default counts the real tokens of a row from 0.
        segment_ids: int (b, t), 0 is padding, tokens see their own segment only; default 1 for every real token.
        key_positions, key_segments: int (b, s), of every key these tokens may see; default the tokens themselves.
        dropout_keys: int32 (b,), one a row and step: what an adapter's dropout draws by; default counted up in
            training.
    In decoding also
        cache: list of (keys, values) a layer, each (b, s, k, h), from `empty_cache`.
        cache_index: slot of the first of these tokens in the cache.
    And for looking inside
        layer_intercept_fn: a function (states float (b, t, d), index) → states to go on with, called on the embeddings
            before they are scaled, index -1, and on what each block returns.
    Returns hidden states float (b, t, d) in the compute dtype, with a cache a pair of them and the updated cache; rows
    of padding hold no meaning.

    Source: arXiv:2403.08295, section 2.
    """

    def __init__(
        self, config: GemmaConfig | None = None, dtype=None, seed: int | None = 0, weights: FirstWeights | None = None,
        remat: str = "none", **kwargs,
    ):  # fmt: skip
        layer_options = {name: kwargs.pop(name) for name in ("name", "trainable") if name in kwargs}
        super().__init__(dtype=dtype, **layer_options)
        if config is None or kwargs:
            if config is not None:
                raise TypeError(f"Pass a GemmaConfig or KerasHub's arguments, not both. Received: {', '.join(kwargs)}")
            config = config_of_arguments(kwargs)
        self.config = config
        self.remat = remat
        self._start_without_adapters()
        policy = self.dtype_policy
        weights = RandomWeights(seed) if weights is None else weights
        self.token_embedding = TokenEmbedding(
            config.vocabulary_size, config.hidden_dim, weights, config.final_logit_soft_cap, dtype=policy,
            name="token_embedding",
        )  # fmt: skip
        self.blocks = []
        for i in range(config.num_layers):
            # Keras on torch registers parameters by path: equal paths would hide all layers but one from zero_grad()
            # and state_dict().
            with keras.name_scope(f"layers_{i}"):
                self.blocks.append(DecoderBlock(config, i, weights, dtype=policy, name=f"decoder_block_{i}"))
        first = weights.initializer("final_norm", 0.0)
        self.final_norm = RMSNorm(config.hidden_dim, config.norm_epsilon, first, dtype=policy, name="final_norm")
        self.built = True

    @classmethod
    def from_preset(cls, preset, dtype=None, load_weights: bool = True, seed: int = 0) -> "GemmaBackbone":
        """The backbone of what `GemmaCausalLM.from_preset` opens, with the same arguments and errors."""
        loaded = presets.read(preset, load_weights)
        backbone = cls(loaded.config, dtype=dtype, weights=presets.first_weights(loaded, seed))
        if loaded.adapter is not None:
            presets.read_adapter(loaded.adapter, backbone, "default")
        return backbone

    def call(self, inputs, cache=None, cache_index=None, training=None, layer_intercept_fn=None):
        token_ids = ops.cast(inputs["token_ids"], "int32")
        padding_mask = inputs.get("padding_mask")
        padding_mask = (
            ops.ones_like(token_ids, dtype="bool") if padding_mask is None else ops.cast(padding_mask, "bool")
        )
        check_padding_mask(token_ids, padding_mask)
        positions, segments = inputs.get("positions"), inputs.get("segment_ids")
        positions = positions_from_padding(padding_mask) if positions is None else ops.cast(positions, "int32")
        segments = (
            ops.cast(padding_mask, "int32")
            if segments is None
            else ops.where(padding_mask, ops.cast(segments, "int32"), 0)
        )
        config = self.config
        rotary = local_rotary = rotary_tables(
            positions, config.head_dim, config.rope_theta, config.rope_scale, self.compute_dtype
        )
        keys = None
        if cache is not None or "key_positions" in inputs or "key_segments" in inputs:
            keys = (inputs.get("key_positions", positions), inputs.get("key_segments", segments))
        windows = [None, config.sliding_window] if any(config.local_layers) else [None]
        visible, *local = visible_keys(positions, segments, keys, windows)
        local_visible = local[0] if local else visible
        if local:
            theta: float = config.local_rope_theta  # type: ignore[assignment]
            local_rotary = rotary_tables(positions, config.head_dim, theta, dtype=self.compute_dtype)
        dropout_keys = inputs.get("dropout_keys")
        if dropout_keys is None and training:
            dropout_keys = self.next_dropout_keys(ops.shape(token_ids)[0])
        intercept = _unchanged if layer_intercept_fn is None else layer_intercept_fn
        x = intercept(direct_call(self.token_embedding, token_ids), -1) * self.token_embedding.input_scale()
        new_cache = []
        for index, block in enumerate(self.blocks):
            block_rotary, block_visible = (local_rotary, local_visible) if block.is_local else (rotary, visible)
            if cache is None and self.remat == "block":
                x = backends.remat(_without_cache(block, block_rotary, block_visible, dropout_keys))(x)
                block_cache = None
            else:
                x, block_cache = direct_call(
                    block,
                    x,
                    block_rotary,
                    visible=block_visible,
                    cache=None if cache is None else cache[index],
                    cache_index=cache_index,
                    dropout_keys=dropout_keys,
                )
            x = intercept(x, index)
            new_cache.append(block_cache)
        hidden = direct_call(self.final_norm, x)
        return hidden if cache is None else (hidden, new_cache)

    @property
    def remat(self) -> str:
        """What the backward pass computes again: "none" or "block"."""
        return self._remat

    @remat.setter
    def remat(self, remat: str) -> None:
        if remat not in REMAT:
            raise ValueError(f"`remat` must be one of {REMAT}. Received: remat={remat!r}")
        self._remat = remat

    @property
    def transformer_layers(self) -> list[DecoderBlock]:
        """The blocks, under KerasHub's name."""
        return self.blocks

    def empty_cache(self, batch: int, slots: int):
        """Zeros for `slots` tokens a row: list of (keys, values) a layer, each (b, s, k, h)."""
        shape = (batch, slots, self.config.num_key_value_heads, self.config.head_dim)
        return [(ops.zeros(shape, self.compute_dtype), ops.zeros(shape, self.compute_dtype)) for _ in self.blocks]

    def named_layers(self) -> dict[str, keras.layers.Layer]:
        """Every layer that holds a weight under its name in our checkpoints, e.g. "layers.0.q_proj" (see
        `checkpoints/names.py`)."""
        named = {"embedding": self.token_embedding}
        for index, block in enumerate(self.blocks):
            inside = {
                "attention_norm": block.attention_norm,
                "q_proj": block.attention.q_proj,
                "k_proj": block.attention.k_proj,
                "v_proj": block.attention.v_proj,
                "o_proj": block.attention.o_proj,
                "query_norm": block.attention.query_norm,
                "key_norm": block.attention.key_norm,
                "post_attention_norm": block.post_attention_norm,
                "feed_forward_norm": block.feed_forward_norm,
                "gate_proj": block.feed_forward.gate_proj,
                "up_proj": block.feed_forward.up_proj,
                "down_proj": block.feed_forward.down_proj,
                "post_feed_forward_norm": block.post_feed_forward_norm,
            }
            named.update({f"layers.{index}.{name}": layer for name, layer in inside.items() if layer is not None})
        named["final_norm"] = self.final_norm
        return named

    def named_variables(self) -> dict[str, keras.Variable]:
        """Every base weight under its checkpoint name; adapters are not among them."""
        return {name: _weight_of(layer) for name, layer in self.named_layers().items()}

    def named_arrays(self) -> Iterator[tuple[str, np.ndarray]]:
        """(checkpoint name, array on the host) of what this model computes with: kernels with the active adapter,
        dequantized."""
        for name, layer in self.named_layers().items():
            if isinstance(layer, Projection):
                yield name, layer.effective_kernel()
            else:
                yield name, np.asarray(ops.convert_to_numpy(_weight_of(layer).value))

    def projections(self) -> dict[str, Projection]:
        """Every projection under its full name, e.g. "layers.0.q_proj"."""
        return {name: layer for name, layer in self.named_layers().items() if isinstance(layer, Projection)}

    def save_lora_weights(self, filepath, name: str | None = None) -> None:
        """Write one adapter, and nothing of the base, as one `.safetensors` file.

        Args:
            name: default the active one.

        Raises:
            ValueError: no such adapter, or another ending.
        """
        presets.write_lora_file(filepath, self, name)

    def load_lora_weights(self, filepath, name: str = "default") -> None:
        """Take the adapter of a file of `save_lora_weights`, or of KerasHub's `.lora.h5` (which needs the extra
        `keras-hub`), and make it the active one. `enable_lora` need not have been called.

        Raises:
            gemma_keras.checkpoints.errors.CheckpointError: a damaged file, or one of another base model.
            ValueError: an adapter `name` of another rank, scale or place is there.
        """
        presets.read_lora_file(filepath, self, name)

    @staticmethod
    def get_layout_map(device_mesh, model_parallel_dim_name: str = "model", data_parallel_dim_name: str = "batch"):
        """`distribution.layout_map`, under KerasHub's name."""
        return layout_map(device_mesh, model_parallel_dim_name, data_parallel_dim_name)

    def get_config(self):
        adapters = {name: dataclasses.asdict(options) for name, options in self.adapters.items()}
        return {
            "config": self.config.to_dict(),
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
            "remat": self.remat,
            "adapters": adapters,
            "active": self.active_adapter,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        policy = keras.dtype_policies.get(config["dtype"])
        # Files of before 0.3 have no "remat".
        backbone = cls(GemmaConfig(**config["config"]), dtype=policy, remat=config.get("remat", "none"))
        for name, options in config["adapters"].items():
            backbone.add_adapter(name, LoraOptions(**options))
        if config["adapters"]:
            backbone.set_adapter(config["active"])
        return backbone


def _unchanged(x, index):
    return x


def _without_cache(block, rotary, visible, dropout_keys):
    # One argument: the rest has no gradient, and TensorFlow's recomputation adds a number to each.
    return lambda x: direct_call(block, x, rotary, visible=visible, dropout_keys=dropout_keys)[0]


def _weight_of(layer: keras.layers.Layer) -> keras.Variable:
    return getattr(layer, {TokenEmbedding: "embeddings", Projection: "kernel", RMSNorm: "scale"}[type(layer)])
