"""lm-eval's own command with `gemma_keras` among its models:

python -m pipelines.engines.lm_eval run --model gemma_keras --model_args pretrained=FOLDER --tasks piqa
"""

from lm_eval.__main__ import cli_evaluate

from pipelines.engines.lm_eval import model as _registers  # noqa: F401

if __name__ == "__main__":
    cli_evaluate()
