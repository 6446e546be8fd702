"""Keras' training methods for a language model: text in, our loss or a user's, and what `.keras` files keep of it."""

import dataclasses
import warnings
from typing import Any

import keras
from keras import ops

from gemma_keras import backends
from gemma_keras.backends.reference import weighted_sum
from gemma_keras.generation import forget_programs
from gemma_keras.inputs import fit_data, triples
from gemma_keras.inputs.preprocessor import GemmaCausalLMPreprocessor
from gemma_keras.keras_files import compile_again
from gemma_keras.losses import mean_loss
from gemma_keras.sampling import Sampler

_OWN_LOSSES = ("auto", "sparse_categorical_crossentropy")


class TextTraining:
    """A mixin for a Keras model with `backbone`, `config`, `tokenizer` and `preprocessor`, whose call gives logits, or
    with `target_ids` and `target_weights` the weighted sum of their log-probabilities."""

    backbone: Any
    config: Any
    compiled: bool
    optimizer: Any
    tokenizer: Any
    preprocessor: GemmaCausalLMPreprocessor
    sampler: Sampler

    def _start_uncompiled(self) -> None:
        self._uses_own_loss = True
        self._loss_name: str | None = None

    def compile(
        self, optimizer="auto", loss="auto", *, sampler="random", metrics=None, weighted_metrics=None, **kwargs
    ):
        """Keras' `compile`, with defaults for a language model.

        Args:
            optimizer: default AdamW at 2e-5 without weight decay.
            loss: "auto" for the mean negative log-probability of the loss-bearing tokens, which never stores the full
                logits. Any other loss, and any metric, gets logits (b, t, v) and the next token ids (b, t), with sample
                weights (b, t), 1 where the token bears loss; `metrics` see every position, `weighted_metrics` the
                loss-bearing ones.
            sampler: for `generate`: "greedy", "random", "top_k", "top_p" or a `gemma_keras.Sampler`.
        """
        if isinstance(optimizer, str) and optimizer == "auto":
            optimizer = keras.optimizers.AdamW(2e-5, weight_decay=0.0)
        self.sampler = Sampler.from_name(sampler)
        self._calls = 0
        forget_programs(self.backbone)
        self._uses_own_loss = isinstance(loss, str) and loss == "auto" and not metrics and not weighted_metrics
        self._loss_name = loss if isinstance(loss, str) else None
        if not self._uses_own_loss:
            warnings.warn(
                "A user's loss or metric needs the logits of the whole vocabulary: training will take far more memory "
                "than `loss='auto'`.",
                stacklevel=2,
            )
        if isinstance(loss, str) and loss in _OWN_LOSSES:
            # Keras would cast token ids to its float type (bfloat16 has no 771), divide by padding, and take logits for
            # probabilities.
            own = keras.losses.SparseCategoricalCrossentropy(
                from_logits=True, reduction="mean_with_sample_weight", dtype="float32"
            )
            loss = None if self._uses_own_loss else own
        options = {"metrics": metrics, "weighted_metrics": weighted_metrics}
        super().compile(optimizer=optimizer, loss=loss, **options, **kwargs)  # type: ignore[misc]

    def fit(
        self, x=None, y=None, batch_size=None, *, sample_weight=None, max_length: int | None = None,
        truncate: bool | None = None, validation_data=None, shuffle=True, **kwargs,
    ):  # fmt: skip
        """Keras' `fit` on text, conversations, prompt and response pairs, or ids.

        Args:
            x: strings (bos + text + eos, no template); lists of `{"role", "content"}` (turn format); dicts, or a dict
                of lists, with "prompt" and "completion" or "prompts" and "responses" (loss on the response only); a
                `datasets.Dataset`, a `tf.data.Dataset` or a PyTorch `DataLoader` of these; or a dict of arrays with
                "token_ids", "padding_mask" and perhaps "is_target" (bool (b, t), True where a token bears loss).
            y, sample_weight: with arrays in `x` what `preprocessor` makes, the next tokens int (b, t) and their weights
                float (b, t); a data set may hold (x, y, sample_weight) too. Otherwise both are made from `x`.
            batch_size: default 32, or the batch size that a `tf.data.Dataset` or `DataLoader` comes with.
            max_length, truncate: tokens a row, and whether longer rows are cut at their end; without it they are an
                error that names the row. Defaults: the preprocessor's.
            validation_data: the same kinds as x.

        Raises:
            ValueError: data of another kind, rows that are too long or bear no loss, text without a tokenizer, or
                `class_weight`.
        """
        if not self.compiled:
            self.compile()
        if kwargs.get("class_weight") is not None:
            raise ValueError(
                "`class_weight` weighs classes, and a language model has tokens: give a weight a token as "
                "`sample_weight`, float (b, t)."
            )
        if self.backbone.token_embedding.embeddings.dtype in ("bfloat16", "float16"):
            warnings.warn(
                "Weights in half precision lose small updates to rounding, and Keras' Adam does nothing to them at "
                "all. Load the model with dtype='mixed_bfloat16': it computes in bfloat16 over float32 weights.",
                stacklevel=2,
            )
        options = {"max_length": max_length, "truncate": truncate, "batch_size": batch_size}
        steps = kwargs.get("steps_per_epoch")
        most = None if steps is None else steps * kwargs.get("epochs", 1)
        features, targets, weights, batch = self._training_arrays(x, y, sample_weight, **options, most_steps=most)
        if validation_data is not None:
            given = validation_data if triples.is_triple(validation_data) else (validation_data,)
            held_out, next_ids, their_weights = (*given, None, None)[:3]
            validation_data = self._training_arrays(held_out, next_ids, their_weights, **options)[:3]
        arguments = {
            "x": features,
            "y": targets,
            "batch_size": batch,
            "sample_weight": weights,
            "validation_data": validation_data,
            "shuffle": shuffle,
            **kwargs,
        }
        with backends.fast_updates(self.optimizer):
            return super().fit(**backends.fit_arguments(arguments))  # type: ignore[misc]

    def evaluate(
        self, x=None, y=None, batch_size=None, *, sample_weight=None, max_length: int | None = None,
        truncate: bool | None = None, **kwargs,
    ):  # fmt: skip
        """Keras' `evaluate` on the same kinds of data as `fit`."""
        prepared = y is not None and isinstance(x, dict) and "target_ids" in x
        if not prepared and "_use_cached_eval_dataset" not in kwargs:  # Keras' `fit` holds its own by then
            options = {"max_length": max_length, "truncate": truncate, "batch_size": batch_size}
            x, y, sample_weight, batch_size = self._training_arrays(x, y, sample_weight, **options)
        return super().evaluate(x, y, batch_size=batch_size, sample_weight=sample_weight, **kwargs)  # type: ignore[misc]

    def predict(self, x, batch_size=None, *, max_length: int | None = None, truncate: bool | None = None, **kwargs):
        """Keras' `predict` on the same kinds of data as `fit`: logits float32 (b, t, v) at every position, or what the
        call gives for prepared arrays."""
        if not (isinstance(x, dict) and "token_ids" in x):
            x, *_, own_batch_size = self._prepared(x, max_length, truncate)
            batch_size = batch_size or own_batch_size
        return super().predict(x, batch_size=batch_size, **kwargs)  # type: ignore[misc]

    def _prepared(self, x, max_length, truncate, most_steps=None, batch_size=None):
        """`fit_data.prepare` under the preprocessor's options where the call gives none."""
        preprocessor, config = self.preprocessor, self.config
        return fit_data.prepare(
            x,
            self.tokenizer,
            preprocessor.sequence_length if max_length is None else max_length,
            config.pad_token_id,
            config.vocabulary_size,
            preprocessor.truncate if truncate is None else truncate,
            most_steps,
            batch_size,
            preprocessor.marks,
        )

    def _training_arrays(self, x, y, sample_weight, max_length, truncate, batch_size, most_steps=None):
        if y is not None:
            if not (isinstance(x, dict) and "token_ids" in x):
                raise ValueError(
                    "`y` is made from `x`, by shifting it. Received: y. Pass only x, with 'is_target' to choose the "
                    "loss-bearing tokens, or the arrays of `model.preprocessor(x)`"
                )
            features, targets, weights = triples.checked(x, y, sample_weight)
            fit_data.check_vocabulary(features["token_ids"], self.config.vocabulary_size)
            own_batch_size = None
        else:
            prepared = self._prepared(x, max_length, truncate, most_steps, batch_size)
            features, targets, weights, own_batch_size = prepared
        if self._uses_own_loss:
            positions, targets, weights = fit_data.loss_positions(targets, weights)
            # The weights are features too: they reach the head before the loss does, which takes its gradients at once.
            features |= {"target_ids": targets, "target_weights": weights}
            if positions is not None:
                features["target_positions"] = positions
        return features, targets, weights, batch_size or own_batch_size

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Mean negative log-probability of the loss-bearing tokens of the batch: weighted sum over tokens / sum of the
        weights."""
        if not self._uses_own_loss:
            return super().compute_loss(x, y, y_pred, sample_weight, training)  # type: ignore[misc]
        weights = ops.cast(sample_weight, "float32")
        # Arrays that a caller prepared may hold `target_ids` alone; then the model gave their log-probabilities.
        total = weighted_sum(y_pred, weights) if len(y_pred.shape) else y_pred
        return mean_loss(total, ops.sum(weights))

    def get_compile_config(self):
        """As Keras', with our own losses by their names, and the sampler."""
        config = super().get_compile_config()  # type: ignore[misc]
        if not config:
            return config  # never compiled, and so is what is made of it
        if self._loss_name in _OWN_LOSSES:
            config["loss"] = self._loss_name
        return {**config, "sampler": dataclasses.asdict(self.sampler)}

    def compile_from_config(self, config):
        """As Keras', which leaves a model whose `compile` takes more than its own uncompiled."""
        others = {name: value for name, value in config.items() if name != "sampler"}
        compile_again(self, others, sampler=Sampler(**config["sampler"]))
