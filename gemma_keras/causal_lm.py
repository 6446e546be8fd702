"""The language model: `fit`, `generate`, token log-probabilities."""

from collections.abc import Iterator, Mapping
from typing import Any

import keras
from keras import ops

from gemma_keras import presets, text_generation
from gemma_keras.backbone import GemmaBackbone
from gemma_keras.checkpoints import keras_hub
from gemma_keras.head import full_logits, target_log_probs, weighted_log_prob
from gemma_keras.inputs.preprocessor import GemmaCausalLMPreprocessor
from gemma_keras.keras_files import export_options
from gemma_keras.layers.chosen_states import chosen_states
from gemma_keras.lora import AdaptedModel
from gemma_keras.sampling import Sampler
from gemma_keras.text.tokenizer import GemmaTokenizer
from gemma_keras.text_training import TextTraining

# Their own files import no Keras.
for _kind in (GemmaTokenizer, GemmaCausalLMPreprocessor):
    keras.saving.register_keras_serializable(package="gemma_keras")(_kind)


@keras.saving.register_keras_serializable(package="gemma_keras")
class GemmaCausalLM(TextTraining, AdaptedModel, keras.Model):
    """A Gemma with its head, the transposed embedding.

    Args:
        backbone: `GemmaBackbone`.
        tokenizer: `GemmaTokenizer`, or None; then only ids go in and out.
        preprocessor: `GemmaCausalLMPreprocessor`, a tokenizer and the length that `fit` and `generate` go by; default
            one of 1024 positions over `tokenizer`.

    Call: the dict of `GemmaBackbone` →
        logits float32 (b, t, v); or, with
        `target_ids` int (b, m) in the dict, log-probabilities float32 (b, m) of those targets, and the full logits are
        never stored; `target_positions` int (b, m) names the positions that predict them, by default m = t and the
        targets are already shifted. In packed rows the targets are (n, m), and `target_rows` int (n, m) says where each
        lies. With `target_weights` float (b, m) too, the sum of weight times log-probability, float32 (), for less work
        than the log-probabilities and their gradients are.

    Example:
        model = GemmaCausalLM.from_preset("path/to/folder")
        model.compile(optimizer=keras.optimizers.AdamW(2e-5))
        model.fit([{"prompt": "Knock knock.", "completion": "Who's there?"}], batch_size=1)
        print(model.generate("Knock knock.", max_length=64))
    """

    def __init__(
        self,
        backbone: GemmaBackbone,
        tokenizer: GemmaTokenizer | None = None,
        preprocessor: GemmaCausalLMPreprocessor | None = None,
        **kwargs,
    ):
        super().__init__(dtype=backbone.dtype_policy, **kwargs)
        self.backbone = backbone
        self.preprocessor = GemmaCausalLMPreprocessor(tokenizer) if preprocessor is None else preprocessor
        self.sampler = Sampler()
        self._calls = 0
        self._start_uncompiled()
        self.built = True

    @property
    def preprocessor(self) -> GemmaCausalLMPreprocessor:
        """Tokenizer and length that `fit` and `generate` go by; set to None as with KerasHub only ids go in and out."""
        return self._preprocessor

    @preprocessor.setter
    def preprocessor(self, preprocessor: GemmaCausalLMPreprocessor | None) -> None:
        self._preprocessor = GemmaCausalLMPreprocessor(None) if preprocessor is None else preprocessor

    @property
    def tokenizer(self) -> Any:
        """The preprocessor's `GemmaTokenizer`, or None."""
        return self.preprocessor.tokenizer

    @tokenizer.setter
    def tokenizer(self, tokenizer: GemmaTokenizer | None) -> None:
        self.preprocessor.tokenizer = tokenizer

    @property
    def config(self):
        """The backbone's `GemmaConfig`."""
        return self.backbone.config

    def call(self, inputs, training=None):
        # Passed on by hand: without a call context, as in JAX's training step, Keras tells inner layers nothing.
        if inputs.get("target_weights") is not None:
            return self.weighted_score(inputs, inputs["target_weights"], training=training)[0]
        if inputs.get("target_ids") is not None:
            return self.score(inputs, training=training)
        return full_logits(
            self.backbone(inputs, training=training), self._output_matrix(), self.config.final_logit_soft_cap
        )

    def score(
        self, inputs=None, temperature: float = 1.0, with_entropy: bool = False, training=None, *, token_ids=None,
        padding_mask=None, scoring_mode: str = "logits", layer_intercept_fn=None, target_ids=None,
    ):  # fmt: skip
        """Differentiable log-probabilities of `inputs["target_ids"]` under `softmax(logits / temperature)`; or, given
        arrays and no dict, what KerasHub's `score` gives.

        Args:
            inputs: as the call, with `target_ids` and perhaps `target_positions`, int (b, m).
            temperature: float > 0, the sampling temperature.
            with_entropy: also return the entropy at each position, float32 (b, m) in nats, without gradient.
            training: True lets adapters drop inputs without `dropout_keys`.
            token_ids, padding_mask: int and bool (b, t), in place of `inputs`.
            scoring_mode: with `token_ids`: "logits" for float32 (b, t, v), or "loss" for the negative log-probability
                of `target_ids` int (b, t), each the token after its position, float32 (b, t).
            layer_intercept_fn: with `token_ids`: see `GemmaBackbone`. KerasHub drops what it returns for the
                embeddings; here the model goes on with it.

        Returns:
            float32 (b, m), or a pair of them; or as `scoring_mode` says.

        Raises:
            ValueError: another `scoring_mode`, or "loss" without targets.
        """
        if token_ids is None and isinstance(inputs, Mapping):
            return self._target_scores(inputs, temperature, with_entropy, training)
        token_ids = inputs if token_ids is None else token_ids
        if scoring_mode not in ("logits", "loss"):
            raise ValueError(f"`scoring_mode` must be 'logits' or 'loss'. Received: scoring_mode={scoring_mode!r}")
        if scoring_mode == "loss" and target_ids is None:
            raise ValueError("scoring_mode='loss' needs `target_ids` (b, t), the token after each position")
        given = {"token_ids": token_ids, "padding_mask": padding_mask}
        hidden = self.backbone(given, training=training, layer_intercept_fn=layer_intercept_fn)
        cap, matrix = self.config.final_logit_soft_cap, self._output_matrix()
        if scoring_mode == "logits":
            return full_logits(hidden, matrix, cap)
        return -target_log_probs(hidden, matrix, target_ids, cap, with_entropy=False)[0]

    def weighted_score(self, inputs, weights, temperature: float = 1.0, training=None):
        """Sum of weight times log-probability of `inputs["target_ids"]`: for a loss whose weights are known before.

        The head then computes its logits once, where a loss made of `score` makes it compute them again for its
        gradients.

        Args:
            inputs, temperature, training: as for `score`.
            weights: float (b, m), constants. 0 leaves a target out.

        Returns:
            total: float32 (), differentiable. log_probs: float32 (b, m), without gradient.
        """
        arguments = self._target_states(inputs, training), self._output_matrix(), inputs["target_ids"], weights
        return weighted_log_prob(*arguments, self.config.final_logit_soft_cap, temperature)

    def _target_scores(self, inputs, temperature, with_entropy, training):
        arguments = self._target_states(inputs, training), self._output_matrix(), inputs["target_ids"]
        log_probs, entropy = target_log_probs(*arguments, self.config.final_logit_soft_cap, temperature, with_entropy)
        return (log_probs, entropy) if with_entropy else log_probs

    def _target_states(self, inputs, training):
        hidden = self.backbone(inputs, training=training)
        if inputs.get("target_positions") is None:
            return hidden
        # Only positions that bear loss reach the head.
        return chosen_states(hidden, inputs["target_positions"], inputs.get("target_rows"))

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
        embedding = self.backbone.token_embedding
        matrix = embedding.as_output_matrix()
        # TensorFlow's tapes watch a frozen variable too; so none sees it, and the head computes no gradient of it.
        return matrix if embedding.embeddings.trainable else ops.stop_gradient(matrix)

    # --- generation

    def generate(
        self,
        inputs,
        max_length: int | None = None,
        stop_token_ids="auto",
        seed: int | None = None,
        strip_prompt: bool = False,
        sampler=None,
        stop=None,
        num_return_sequences: int = 1,
    ):
        """Continue prompts.

        Args:
            inputs: a string, a list of strings, a conversation (list of `{"role", "content"}`), a list of
                conversations, a dict of texts "prefix" and "suffix" to fill in between (CodeGemma) or a list of them, a
                list of id lists, or a dict of arrays with "token_ids" and "padding_mask". Strings are continued as they
                are, after bos; conversations are put into the turn format.
            max_length: tokens of prompt and answer together; default the width of the arrays where those have room,
                else `preprocessor.sequence_length`.
            stop_token_ids: "auto" for end of sequence and end of turn, with a prefix and a suffix the infilling marks
                too; a list of ids; or None to stop only at `max_length`.
            seed: of the draws; row i of the call draws the same numbers whatever the batch. Default: the sampler's seed
                and the number of the call, or where it has none new draws each time, which
                `keras.utils.set_random_seed` makes repeatable.
            strip_prompt: return the continuation alone.
            sampler: default that of `compile`.
            stop: a string or strings that end an answer, and are cut off.
            num_return_sequences: answers a prompt, one after the other in the result.

        Returns:
            Text for text, one string for one of them; of conversations the answer alone, of infilling the middle alone;
            for ids a dict with "token_ids" int32 and "padding_mask" bool, both (b, max_length), padded on the right,
            with `strip_prompt` (b, new).

        Raises:
            ValueError: text without a tokenizer, a prompt that leaves no room below `max_length`, or `stop` with ids.
        """
        asked = text_generation.request(
            self, inputs, max_length, stop_token_ids, seed, sampler, num_return_sequences=num_return_sequences
        )
        return text_generation.answer(self, asked, strip_prompt, stop)

    def count_call(self) -> int:
        """How often a sampler's own seed has been drawn by before; 0 again after `compile`."""
        self._calls += 1
        return self._calls - 1

    def stream(
        self, inputs, max_length: int | None = None, stop_token_ids="auto", seed: int | None = None, sampler=None,
        stop=None,
    ) -> Iterator[str]:  # fmt: skip
        """The answer to one prompt, piece by piece as it is sampled: joined, what `generate` returns with
        `strip_prompt`.

        Args: as `generate`, of one text, conversation, or prefix and suffix.

        Yields:
            Text, never empty, without the prompt; no part of a character, and nothing that `stop` cuts off.

        Raises:
            ValueError: as `generate`; several prompts, or ids.
        """
        asked = text_generation.request(self, inputs, max_length, stop_token_ids, seed, sampler)
        return text_generation.pieces(self, asked, stop)

    # --- disk

    @classmethod
    def from_preset(
        cls, preset, dtype=None, load_weights: bool = True, seed: int = 0, preprocessor: Any = "auto"
    ) -> "GemmaCausalLM":
        """A model from a Hugging Face folder, a `.gguf` file, a KerasHub preset, a hub id, a published name, or the
        folder of an adapter, which gives its base with the adapter active.

        Args:
            preset: path; "owner/name", also behind `hf://` and before `@revision`; `kaggle://` handle of KerasHub; or a
                name of ours or of KerasHub's, such as "gemma2_instruct_2b_en", which is fetched from the Hugging Face
                hub, or with `load_weights=False` is a size alone, without a tokenizer.
            dtype: Keras dtype or policy name of the result, default Keras' global policy; weights are cast on the way.
            load_weights: False gives random weights, keyed by `seed`.
            preprocessor: "auto" for one over the tokenizer that lies there, another one, or None; then only ids go in
                and out.

        Raises:
            gemma_keras.checkpoints.errors.CheckpointError: a folder that is damaged, incomplete or of another
            architecture, or a hub that cannot be reached.
        """
        loaded = presets.read(preset, load_weights)
        model = cls(
            GemmaBackbone(loaded.config, dtype=dtype, weights=presets.first_weights(loaded, seed)), loaded.tokenizer
        )
        if not isinstance(preprocessor, str):
            model.preprocessor = preprocessor
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

    def export(self, filepath, format="tf_saved_model", verbose=None, input_signature=None, **kwargs):
        """Keras' `export`; the model need not have been called before.

        Args:
            input_signature: default `token_ids` int32 (b, t) and `padding_mask` bool (b, t), b and t free.

        Raises:
            ValueError: on PyTorch a SavedModel, or format "torch" without fixed shapes.
        """
        super().export(filepath, verbose=verbose, **export_options(format, input_signature, kwargs))

    def get_config(self):
        backbone = keras.saving.serialize_keras_object(self.backbone)
        return {"backbone": backbone, "preprocessor": self.preprocessor.get_config()}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        preprocessor = config.get("preprocessor")  # files of before 0.2 have none
        return cls(
            keras.saving.deserialize_keras_object(config["backbone"]),
            preprocessor=None if preprocessor is None else GemmaCausalLMPreprocessor.from_config(preprocessor),
        )
