"""The language model: `fit`, `generate`, token log-probabilities."""

import warnings

import keras
import numpy as np
from keras import ops

from gemma_keras import presets
from gemma_keras.backbone import GemmaBackbone
from gemma_keras.checkpoints import keras_hub
from gemma_keras.generation import generate_tokens
from gemma_keras.head import full_logits, target_log_probs
from gemma_keras.inputs import fit_data, prompt_data
from gemma_keras.lora import AdaptedModel
from gemma_keras.losses import next_token_loss
from gemma_keras.random import uniforms
from gemma_keras.sampling import Sampler
from gemma_keras.text.infilling import infilling_stop_token_ids

_STEP_MULTIPLE = 8  # of decoding steps, so that few loops are compiled


@keras.saving.register_keras_serializable(package="gemma_keras")
class GemmaCausalLM(AdaptedModel, keras.Model):
    """A Gemma with its head, the transposed embedding.

    Args:
        backbone: `GemmaBackbone`.
        tokenizer: `GemmaTokenizer`, or None; then only ids go in and out.

    Call: the dict of `GemmaBackbone` →
        logits float32 (b, t, v); or, with
        `target_ids` int (b, m) in the dict, log-probabilities float32 (b, m) of those targets, and the full logits are
        never stored; `target_positions` int (b, m) names the positions that predict them, by default m = t and the
        targets are already shifted.

    Example:
        model = GemmaCausalLM.from_preset("path/to/folder")
        model.compile(optimizer=keras.optimizers.AdamW(2e-5))
        model.fit([{"prompt": "Knock knock.", "completion": "Who's there?"}], batch_size=1)
        print(model.generate("Knock knock.", max_length=64))
    """

    def __init__(self, backbone: GemmaBackbone, tokenizer=None, **kwargs):
        super().__init__(dtype=backbone.dtype_policy, **kwargs)
        self.backbone = backbone
        self.tokenizer = tokenizer
        self.sampler = Sampler()
        self._uses_own_loss = True
        self.built = True

    @property
    def config(self):
        """The backbone's `GemmaConfig`."""
        return self.backbone.config

    def call(self, inputs, training=None):
        # Passed on by hand: without a call context, as in JAX's training step, Keras tells inner layers nothing.
        if inputs.get("target_ids") is not None:
            return self.score(inputs, training=training)
        return full_logits(
            self.backbone(inputs, training=training), self._output_matrix(), self.config.final_logit_soft_cap
        )

    def score(self, inputs, temperature: float = 1.0, with_entropy: bool = False, training=None):
        """Differentiable log-probabilities of `inputs["target_ids"]` under `softmax(logits / temperature)`.

        Args:
            inputs: as the call, with `target_ids` and perhaps `target_positions`, int (b, m).
            temperature: float > 0, the sampling temperature.
            with_entropy: also return the entropy at each position, float32 (b, m) in nats, without gradient.
            training: True lets adapters drop inputs without `dropout_keys`.

        Returns:
            float32 (b, m), or a pair of them.
        """
        hidden = self.backbone(inputs, training=training)
        if inputs.get("target_positions") is not None:
            # Only positions that bear loss reach the head.
            hidden = ops.take_along_axis(hidden, ops.cast(inputs["target_positions"], "int32")[:, :, None], axis=1)
        log_probs, entropy = target_log_probs(
            hidden,
            self._output_matrix(),
            inputs["target_ids"],
            self.config.final_logit_soft_cap,
            temperature,
            with_entropy,
        )
        return (log_probs, entropy) if with_entropy else log_probs

    def token_log_probs(self, token_ids, padding_mask=None, temperature: float = 1.0):
        """Log-probability of every token given those before it in its row.

        Args:
            token_ids: int (b, t). padding_mask: bool (b, t), True is a real token; default all.

        Returns:
            float32 (b, t); 0 for padding and for the first real token of a row, which nothing predicts.
        """
        token_ids = ops.convert_to_tensor(token_ids, "int32")
        real = ops.ones_like(token_ids, dtype="bool") if padding_mask is None else ops.cast(padding_mask, "bool")
        inputs = {"token_ids": token_ids, "padding_mask": real, "target_ids": ops.roll(token_ids, -1, axis=1)}
        log_probs = ops.roll(self.score(inputs, temperature), 1, axis=1)
        follows = ops.logical_and(real, ops.cumsum(ops.cast(real, "int32"), axis=1) > 1)
        return ops.where(follows, log_probs, 0.0)

    def _output_matrix(self):
        return self.backbone.token_embedding.as_output_matrix()

    # --- training with Keras

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
        self._uses_own_loss = isinstance(loss, str) and loss == "auto" and not metrics and not weighted_metrics
        if not self._uses_own_loss:
            warnings.warn(
                "A user's loss or metric needs the logits of the whole vocabulary: training will take far more memory "
                "than `loss='auto'`.",
                stacklevel=2,
            )
        if isinstance(loss, str) and loss in ("auto", "sparse_categorical_crossentropy"):
            # Keras would cast token ids to its float type (bfloat16 has no 771), divide by padding, and take logits for
            # probabilities.
            own = keras.losses.SparseCategoricalCrossentropy(
                from_logits=True, reduction="mean_with_sample_weight", dtype="float32"
            )
            loss = None if self._uses_own_loss else own
        super().compile(optimizer=optimizer, loss=loss, metrics=metrics, weighted_metrics=weighted_metrics, **kwargs)

    def fit(
        self, x=None, y=None, batch_size=None, *, max_length: int = 1024, validation_data=None, shuffle=True, **kwargs
    ):
        """Keras' `fit` on text, conversations, prompt and response pairs, or ids.

        Args:
            x: strings (bos + text + eos, no template); lists of `{"role", "content"}` (turn format); dicts, or a dict
                of lists, with "prompt" and "completion" or "prompts" and "responses" (loss on the response only); a
                `datasets.Dataset`, a `tf.data.Dataset` or a PyTorch `DataLoader` of these; or a dict of arrays with
                "token_ids", "padding_mask" and perhaps "is_target" (bool (b, t), True where a token bears loss).
            batch_size: default 32, or the batch size that a `tf.data.Dataset` or `DataLoader` comes with.
            max_length: tokens a row; longer ones are an error that names the row.
            validation_data: the same kinds as x.

        Raises:
            ValueError: data of another kind, rows that are too long or bear no loss, or text without a tokenizer.
        """
        if not self.compiled:
            self.compile()
        if self.backbone.token_embedding.embeddings.dtype in ("bfloat16", "float16"):
            warnings.warn(
                "Weights in half precision lose small updates to rounding, and Keras' Adam does nothing to them at "
                "all. Load the model with dtype='mixed_bfloat16': it computes in bfloat16 over float32 weights.",
                stacklevel=2,
            )
        if y is not None:
            raise ValueError(
                "`y` is made from `x`, by shifting it. Received: y. Pass only x, with 'is_target' to choose the "
                "loss-bearing tokens"
            )
        features, targets, weights, batch = self._training_arrays(x, max_length, batch_size)
        if validation_data is not None:
            validation_data = self._training_arrays(validation_data, max_length, batch_size)[:3]
        return super().fit(
            features,
            targets,
            batch_size=batch,
            sample_weight=weights,
            validation_data=validation_data,
            shuffle=shuffle,
            **kwargs,
        )

    def evaluate(self, x=None, y=None, batch_size=None, *, max_length: int = 1024, **kwargs):
        """Keras' `evaluate` on the same kinds of data as `fit`; once prepared arrays with their `y` are given they pass
        through."""
        if y is None:
            x, y, kwargs["sample_weight"], batch_size = self._training_arrays(x, max_length, batch_size)
        return super().evaluate(x, y, batch_size=batch_size, **kwargs)

    def _training_arrays(self, data, max_length, batch_size):
        config = self.config
        features, targets, weights, own_batch_size = fit_data.prepare(
            data, self.tokenizer, max_length, config.pad_token_id, config.vocabulary_size
        )
        if self._uses_own_loss:
            positions, targets, weights = fit_data.loss_positions(targets, weights)
            features["target_ids"] = targets
            if positions is not None:
                features["target_positions"] = positions
        return features, targets, weights, batch_size or own_batch_size

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Mean negative log-probability of the loss-bearing tokens of the batch: sum over tokens / their number."""
        if not self._uses_own_loss:
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        return next_token_loss(y_pred, ops.cast(sample_weight, "float32") > 0)

    # --- generation

    def generate(
        self,
        inputs,
        max_length: int = 256,
        stop_token_ids="auto",
        seed: int = 0,
        strip_prompt: bool = False,
        sampler=None,
    ):
        """Continue prompts.

        Args:
            inputs: a string, a list of strings, a conversation (list of `{"role", "content"}`), a list of
                conversations, a dict of texts "prefix" and "suffix" to fill in between (CodeGemma) or a list of them, a
                list of id lists, or a dict of arrays with "token_ids" and "padding_mask". Strings are continued as they
                are, after bos; conversations are put into the turn format.
            max_length: tokens of prompt and answer together.
            stop_token_ids: "auto" for end of sequence and end of turn, with a prefix and a suffix the infilling marks
                too; a list of ids; or None to stop only at `max_length`.
            seed: of the draws; row i of the call draws the same numbers whatever the batch.
            strip_prompt: return the continuation alone.
            sampler: default that of `compile`.

        Returns:
            Text for text, one string for one of them; of conversations the answer alone, of infilling the middle alone;
            for ids a dict with "token_ids" int32 and "padding_mask" bool, both (b, prompt + new), prompts padded on the
            left.

        Raises:
            ValueError: text without a tokenizer, or a prompt that leaves no room below `max_length`.
        """
        prompts, kind = prompt_data.encode(inputs, self.tokenizer, self.config.vocabulary_size)
        longest = max(len(prompt) for prompt in prompts)
        if longest >= max_length:
            raise ValueError(
                f"The longest prompt has {longest} tokens and leaves no room. Received: max_length={max_length}"
            )
        sampler = self.sampler if sampler is None else Sampler.from_name(sampler)
        new_tokens = max_length - longest
        token_ids, is_token = prompt_data.left_padded(prompts, self.config.pad_token_id)
        # A few steps too many cost less than compiling a loop for every length.
        steps = -(-new_tokens // _STEP_MULTIPLE) * _STEP_MULTIPLE
        draws = np.stack([uniforms(seed, "generate", row, shape=steps) for row in range(len(prompts))])
        stops = self._stop_token_ids(stop_token_ids, kind)
        generated = generate_tokens(self.backbone, token_ids, is_token, steps, draws, sampler, stops).shortened(
            new_tokens
        )
        if kind == "ids":
            if strip_prompt:
                return {"token_ids": generated.token_ids, "padding_mask": generated.response_mask}
            return {
                "token_ids": np.concatenate([token_ids, generated.token_ids], axis=1),
                "padding_mask": np.concatenate([is_token, generated.response_mask], axis=1),
            }
        answers = generated.responses()
        if kind in ("text", "texts") and not strip_prompt:
            answers = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
        texts = [self.tokenizer.decode(answer) for answer in answers]
        return texts[0] if kind in ("text", "conversation", "infilling") else texts

    def _stop_token_ids(self, stop_token_ids, kind):
        if stop_token_ids is None:
            return ()
        if isinstance(stop_token_ids, str) and kind in ("infilling", "infillings"):
            return infilling_stop_token_ids(self.tokenizer)
        if isinstance(stop_token_ids, str):
            return self.tokenizer.stop_token_ids if self.tokenizer is not None else (self.config.eos_token_id,)
        return tuple(stop_token_ids)

    # --- disk

    @classmethod
    def from_preset(cls, preset, dtype=None, load_weights: bool = True, seed: int = 0) -> "GemmaCausalLM":
        """A model from a Hugging Face folder, a `.gguf` file, a KerasHub preset, a hub id, a published name, or the
        folder of an adapter, which gives its base with the adapter active.

        Args:
            preset: path; "owner/name", also behind `hf://` and before `@revision`; `kaggle://` handle of KerasHub; or a
                name of ours or of KerasHub's, such as "gemma2_instruct_2b_en", which is fetched from the Hugging Face
                hub, or with `load_weights=False` is a size alone, without a tokenizer.
            dtype: Keras dtype or policy name of the result, default Keras' global policy; weights are cast on the way.
            load_weights: False gives random weights, keyed by `seed`.

        Raises:
            gemma_keras.checkpoints.errors.CheckpointError: a folder that is damaged, incomplete or of another
            architecture, or a hub that cannot be reached.
        """
        loaded = presets.read(preset, load_weights)
        model = cls(
            GemmaBackbone(loaded.config, dtype=dtype, weights=presets.first_weights(loaded, seed)), loaded.tokenizer
        )
        if loaded.adapter is not None:
            model.load_adapter(loaded.adapter)
        return model

    @classmethod
    def from_keras_hub(cls, model, dtype=None) -> "GemmaCausalLM":
        """The same model as a KerasHub `GemmaCausalLM`, `Gemma3CausalLM` or backbone, LoRA merged where it has some.

        Raises:
            gemma_keras.checkpoints.errors.CheckpointError: another kind of model, or one with images.
        """
        loaded = keras_hub.stored_model(*keras_hub.parts_of(model))
        return cls(
            GemmaBackbone(loaded.config, dtype=dtype, weights=presets.first_weights(loaded, 0)), loaded.tokenizer
        )

    def to_keras_hub(self, dtype: str = "float32"):
        """KerasHub's task model of the same weights, an active adapter in its kernels; `save_to_preset` of it writes a
        KerasHub preset.

        Raises:
            gemma_keras.checkpoints.errors.CheckpointError: KerasHub's classes have no such model.
            ModuleNotFoundError: the extra `keras-hub` is not installed.
        """
        proto = None if self.tokenizer is None else self.tokenizer.model_proto
        return keras_hub.task_of(self.config, self.backbone.named_arrays(), proto, dtype)

    def save_to_preset(self, folder, dtype: str = "float32") -> None:
        """Write a Hugging Face folder that `transformers` and its kin open; see `presets.write`. An active adapter is
        in its kernels.

        Args:
            dtype: of the weights in the file: "float32", "bfloat16" or "float16".
        """
        presets.write(folder, self.config, self.backbone.named_arrays(), self.tokenizer, dtype)

    def save_adapter(self, folder, name: str | None = None, base: str | None = None) -> None:
        """Write one adapter in PEFT's format, which peft, transformers and vLLM read.

        Args:
            name: default the active one. base: path or hub id of the base model, for tools that load both.
        """
        presets.write_adapter(folder, self.backbone, name, base)

    def load_adapter(self, folder, name: str = "default") -> None:
        """Add an adapter from PEFT's format under `name` and make it the active one.

        Raises:
            gemma_keras.checkpoints.errors.CheckpointError: a folder that is damaged, of another kind, or of another
            base model.
            ValueError: the name is taken.
        """
        presets.read_adapter(folder, self.backbone, name)

    def get_config(self):
        return {"backbone": keras.saving.serialize_keras_object(self.backbone)}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(keras.saving.deserialize_keras_object(config["backbone"]))
