"""The floor plan as data: the floor of each room, what is light, the doors into heavy code."""

GEMMA_KERAS = {
    **dict.fromkeys(
        (
            "config",
            "lora_options",
            "random",
            "errors",
            "install_advice",
            "files",
            "shapes",
            "distribution",
            "keras_files",
        ),
        0,
    ),
    **dict.fromkeys(("text", "backends", "initializers", "backend_choice"), 1),
    **dict.fromkeys(("head", "tokenizers"), 2),
    **dict.fromkeys(("layers", "inputs", "checkpoints", "losses", "sampling"), 3),
    **dict.fromkeys(("lora", "presets", "samplers"), 4),
    **dict.fromkeys(("backbone", "generation"), 5),
    **dict.fromkeys(("text_generation", "text_training"), 6),
    **dict.fromkeys(("causal_lm", "reward_model"), 7),
    "models": 8,
}
PIPELINES = {
    "host": 0,
    **dict.fromkeys(("graders", "measures", "algorithms"), 1),
    **dict.fromkeys(("schema", "tasks", "report"), 2),
    **dict.fromkeys(("data", "memory"), 3),
    **dict.fromkeys(("sampling", "training"), 4),
    "scoring": 5,
    "stages": 6,
    "workflow": 7,
    "run": 8,
    "commands": 9,
    "cli": 10,
    "__main__": 11,
}
FLOORS = {"gemma_keras": GEMMA_KERAS, "pipelines": PIPELINES}
"""Package → room → floor. A room imports rooms of lower floors only."""

HEAVY = ("keras", "jax", "torch", "tensorflow", "datasets")

LIGHT = (
    "pipelines.cli",
    "pipelines.commands.workflows",
    "pipelines.commands.convert",
    "pipelines.commands.show",
    "pipelines.commands.token_text",
    "pipelines.commands.backend",
    "pipelines.commands.conversation",
    "pipelines.commands.line_editing",
    "pipelines.commands.model_options",
    "pipelines.commands.models",
    "pipelines.commands.prompts",
    "pipelines.run.*",
    "pipelines.workflow.*",
    "pipelines.schema.*",
    "pipelines.report.*",
    "pipelines.host.*",
    "pipelines.measures.*",
    "pipelines.graders.*",
    "pipelines.memory.*",
    "pipelines.tasks*",
    "pipelines.stages.registry",
    "pipelines.stages.context",
    "pipelines.stages.*.config",
    "pipelines.stages.*.memory",
    "pipelines.stages.*.report*",
    "pipelines.stages.policy_optimization.methods.*",
    "pipelines.data.jsonl",
    "pipelines.data.columns",
    "pipelines.data.hh_rlhf",
    "pipelines.data.rejects",
    "pipelines.data.sources",
    "pipelines.data.contents",
    "pipelines.data.examples",
    "pipelines.data.heldout",
    "pipelines.data.turns",
    "pipelines.data.encoding",
    "pipelines.data.packing",
    "pipelines.data.batches",
    "pipelines.sampling.prompts",
    "gemma_keras.config",
    "gemma_keras.text.*",
    "gemma_keras.tokenizers",
    "gemma_keras.inputs.*",
    "gemma_keras.checkpoints.*",
)
"""Patterns of modules whose import leaves all of `HEAVY` out of `sys.modules`."""

DOORS = {
    "gemma_keras/__init__.py": ("gemma_keras.*", "a name is loaded when it is first asked for"),
    "gemma_keras/install_advice.py": ("importlib.metadata", "a fiftieth of a second, which only an error needs"),
    "gemma_keras/checkpoints/gguf_reader.py": ("gguf", "an optional package"),
    "gemma_keras/checkpoints/keras_hub.py": ("keras*", "an optional package, and the Keras it brings along"),
    "gemma_keras/checkpoints/hub.py": ("huggingface_hub*", "a third of a second that a local folder need not wait"),
    "gemma_keras/text/tokenizer.py": (
        "gemma_keras",
        "`from_preset`: file formats, a floor above, by the package's name",
    ),
    "pipelines/commands/backend.py": ("keras", "the commands that build a model load Keras when it is known which one"),
    "pipelines/commands/models.py": ("pipelines.commands.talk", "chat and generate build a model"),
    "pipelines/data/sources.py": ("pipelines.data.tables", "tables and hub data sets need `datasets`"),
    "pipelines/run/runner.py": ("pipelines.report.page", "drawing takes half a second, and only a report pays"),
    "pipelines/stages/registry.py": ("pipelines.stages.*", "a stage in its process; the kinds' parts of the report"),
    "pipelines/stages/policy_optimization/methods/*.py": (
        "pipelines.*",
        "an algorithm's formulas: naming it loads no Keras",
    ),
}
"""File (pattern) → (what it may import within a function, why). Every other import stands at the top of its file."""
