"""The reward model: a Gemma whose last response token's state is read as one number."""

import itertools

import keras
import numpy as np
from keras import ops

from gemma_keras import backends, presets
from gemma_keras.backbone import GemmaBackbone
from gemma_keras.checkpoints.weights import StoredWeights
from gemma_keras.initializers import KeyedNormal
from gemma_keras.inputs import pair_data
from gemma_keras.keras_files import compile_again
from gemma_keras.layers.chosen_states import chosen_states
from gemma_keras.lora import AdaptedModel
from gemma_keras.text.tokenizer import GemmaTokenizer


@keras.saving.register_keras_serializable(package="gemma_keras")
class GemmaRewardModel(AdaptedModel, keras.Model):
    """A scalar score of a token sequence.

    Args:
        backbone: `GemmaBackbone`, usually the instruction-tuned one.
        tokenizer: `GemmaTokenizer` or None.
        seed: of the head's initial weights, std 1 / sqrt(d + 1); None for zeros.

    Call: a dict with `token_ids` int (b, t), `padding_mask` bool (b, t), and perhaps `reward_positions` int (b,), the
    index of the last response token; default the last real token of the row, on whichever side the padding is. Returns
    raw scores float32 (b,). Arrays (b, 2, t), the chosen and the rejected response of each pair, give scores (b, 2).
    Packed rows (see `GemmaBackbone`) give n scores: `reward_rows` and `reward_positions` int (n,) say where they lie.

    Example:
        model = GemmaRewardModel.from_preset("path/to/folder")
        model.fit([{"prompt": "Knock knock.", "chosen": "Who's there?", "rejected": "No."}])

    Attributes:
        reward_mean, reward_std: of raw scores on samples of the instruction-tuned model; `normalized(raw)` applies
            them. They are saved in the folder's config.json, the head's weights stay raw.

    Source: Bradley-Terry reward modelling, arXiv:2203.02155, section 3.5; head initialisation arXiv:2009.01325,
    appendix B.1.
    """

    def __init__(self, backbone: GemmaBackbone, tokenizer=None, seed: int | None = 0, **kwargs):
        super().__init__(dtype=backbone.dtype_policy, **kwargs)
        self.backbone = backbone
        self.backbone.holds_one_adapter = True
        self.tokenizer = tokenizer
        self.reward_mean, self.reward_std = 0.0, 1.0
        width = backbone.config.hidden_dim
        # The head stays float32: rewards differ in the third decimal, where bfloat16 has none.
        self.score = keras.layers.Dense(
            1,
            use_bias=False,
            dtype="float32",
            name="score",
            kernel_initializer=KeyedNormal(seed, "score", (width + 1) ** -0.5),
        )
        self.score.build((None, width))
        self.built = True

    @property
    def config(self):
        """The backbone's `GemmaConfig`."""
        return self.backbone.config

    def call(self, inputs, training=None):
        if len(inputs["token_ids"].shape) == 3:
            rows, width = ops.shape(inputs["token_ids"])[0], inputs["token_ids"].shape[-1]
            flat = {name: ops.reshape(inputs[name], (-1, width)) for name in ("token_ids", "padding_mask")}
            return ops.reshape(self.call(flat, training=training), (rows, 2))
        hidden = self.backbone(inputs, training=training)
        positions = inputs.get("reward_positions")
        if positions is None:
            positions = last_token_positions(inputs["token_ids"], inputs.get("padding_mask"))
        rows = inputs.get("reward_rows")
        last = chosen_states(hidden, positions[:, None], None if rows is None else rows[:, None])[:, 0]
        return self.score(ops.cast(last, "float32"))[:, 0]

    def compile(self, optimizer="auto", loss="auto", *, metrics=None, **kwargs):
        """Keras' `compile`, with defaults for preferences.

        Args:
            optimizer: default AdamW at 1e-5 without weight decay.
            loss: "auto" for `-log sigmoid(chosen - rejected - margin)`; any other gets the margins (b,) and the scores
                (b, 2).
            metrics: with our loss by default the share of pairs whose chosen response scores higher, "accuracy".
        """
        if isinstance(optimizer, str) and optimizer == "auto":
            optimizer = keras.optimizers.AdamW(1e-5, weight_decay=0.0)
        is_ours = isinstance(loss, str) and loss == "auto"
        loss = pair_loss if is_ours else loss
        if metrics is None and is_ours:
            metrics = [keras.metrics.MeanMetricWrapper(pair_accuracy, name="accuracy")]
        super().compile(optimizer=optimizer, loss=loss, metrics=metrics, **kwargs)

    def compile_from_config(self, config):
        """As Keras', which leaves a model with a `compile` of its own uncompiled."""
        compile_again(self, config)

    def fit(
        self, x=None, y=None, batch_size=None, *, max_length: int = 1024, truncate: bool = False, validation_data=None,
        **kwargs,
    ):  # fmt: skip
        """Keras' `fit` on preferences.

        Args:
            x: rows `{"prompt", "chosen", "rejected"}` and perhaps "margin", a dict of lists of these, or a data set,
                see `inputs/pair_data.py`; with `y` arrays, which Keras gets as they are.
            y: targets of a loss of yours.
            batch_size: pairs, default 32, or what a data set comes with.
            max_length, truncate: tokens a row, and whether longer ones are cut at their end; otherwise they are an
                error.
            validation_data: the same kinds as x; with `y` Keras'.

        Raises:
            ValueError: data of another kind, rows that are too long, or no tokenizer.
        """
        if not self.compiled:
            self.compile()
        if y is None:
            x, y, own_batch_size = self._pairs(x, max_length, truncate)
            batch_size = batch_size or own_batch_size
            if validation_data is not None:
                validation_data = self._pairs(validation_data, max_length, truncate)[:2]
        arguments = {"x": x, "y": y, "batch_size": batch_size, "validation_data": validation_data, **kwargs}
        with backends.fast_updates(self.optimizer):
            return super().fit(**backends.fit_arguments(arguments))

    def evaluate(self, x=None, y=None, batch_size=None, *, max_length: int = 1024, truncate: bool = False, **kwargs):
        """Keras' `evaluate` on the same kinds of data as `fit`."""
        if y is None and "_use_cached_eval_dataset" not in kwargs:  # Keras' `fit` holds its own by then
            x, y, own_batch_size = self._pairs(x, max_length, truncate)
            batch_size = batch_size or own_batch_size
        return super().evaluate(x, y, batch_size=batch_size, **kwargs)

    def _pairs(self, data, max_length, truncate):
        return pair_data.prepare(data, self.tokenizer, max_length, self.config.pad_token_id, truncate)

    def normalized(self, raw):
        """Raw scores shifted and scaled to mean 0 and std 1 on samples of the instruction-tuned model."""
        return (raw - self.reward_mean) / self.reward_std

    def named_variables(self) -> dict[str, keras.Variable]:
        """The backbone's weights and "score" under their checkpoint names."""
        return {**self.backbone.named_variables(), "score": self.score.kernel}

    @classmethod
    def from_preset(cls, preset, dtype=None, load_weights: bool = True, seed: int = 0) -> "GemmaRewardModel":
        """As `GemmaCausalLM.from_preset`; a language model's folder gives its backbone under a fresh head keyed by
        `seed`; the folder of a reward model's adapter gives the head that lies in it."""
        loaded = presets.read(preset, load_weights)
        backbone = GemmaBackbone(loaded.config, dtype=dtype, weights=presets.first_weights(loaded, seed))
        model = cls(backbone, loaded.tokenizer, seed=seed)
        if loaded.reward is not None:
            model.reward_mean, model.reward_std = loaded.reward["reward_mean"], loaded.reward["reward_std"]
            if isinstance(loaded.weights, StoredWeights):
                model.score.kernel.assign(np.ascontiguousarray(loaded.weights.read("score", "float32")))
        if loaded.adapter is not None:
            model.load_adapter(loaded.adapter)
        return model

    def save_to_preset(self, folder, dtype: str = "float32") -> None:
        """Write a folder that opens as transformers' `AutoModelForSequenceClassification` with one label."""
        reward = {"reward_mean": float(self.reward_mean), "reward_std": float(self.reward_std)}
        head = ("score", np.asarray(ops.convert_to_numpy(self.score.kernel.value)))
        presets.write(
            folder, self.config, itertools.chain(self.backbone.named_arrays(), [head]), self.tokenizer, dtype, reward
        )

    def save_adapter(self, folder, name: str | None = None, base: str | None = None) -> None:
        """As `GemmaCausalLM.save_adapter`, with the head, which is trained in full."""
        presets.write_adapter(folder, self.backbone, name, base, self.score.kernel)

    def load_adapter(self, folder, name: str = "default") -> None:
        """As `GemmaCausalLM.load_adapter`; a head that the folder holds replaces this one's."""
        score = presets.read_adapter(folder, self.backbone, name)
        if score is not None:
            self.score.kernel.assign(score)

    def get_config(self):
        backbone = keras.saving.serialize_keras_object(self.backbone)
        tokenizer = None if self.tokenizer is None else self.tokenizer.get_config()
        normalization = {"reward_mean": self.reward_mean, "reward_std": self.reward_std}
        return {"backbone": backbone, "tokenizer": tokenizer, **normalization}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        tokenizer = config.get("tokenizer")
        tokenizer = None if tokenizer is None else GemmaTokenizer.from_config(tokenizer)
        model = cls(keras.saving.deserialize_keras_object(config["backbone"]), tokenizer)
        model.reward_mean, model.reward_std = config["reward_mean"], config["reward_std"]
        return model


@keras.saving.register_keras_serializable(package="gemma_keras")
def pair_loss(margins, scores):
    """The loss of each pair, float32 (b,), of margins (b,) and scores (b, 2), the chosen response's first.

    Source: see `losses.bradley_terry_loss`, which is its mean.
    """
    return ops.softplus(ops.reshape(ops.cast(margins, "float32"), (-1,)) - scores[:, 0] + scores[:, 1])


@keras.saving.register_keras_serializable(package="gemma_keras")
def pair_accuracy(margins, scores):
    """1 where the chosen response scores higher, 0.5 where both score the same, else 0: float32 (b,)."""
    difference = scores[:, 0] - scores[:, 1]
    return 0.5 * (ops.cast(ops.sign(difference), "float32") + 1.0)


def last_token_positions(token_ids, padding_mask=None):
    """Index of the last real token of each row, int32 (b,); the padding may lie on either side.

    Args:
        token_ids: int (b, t). padding_mask: bool (b, t), True is a real token; default all.
    """
    length = token_ids.shape[1]
    if padding_mask is None:
        return ops.full((token_ids.shape[0],), length - 1, dtype="int32")
    columns = ops.convert_to_tensor(np.arange(length, dtype=np.int32))
    return ops.max(ops.where(ops.cast(padding_mask, "bool"), columns, 0), axis=1)
