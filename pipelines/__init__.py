"""What runs: stages chained by a workflow file into a run that can be stopped, resumed and repeated."""

import gemma_keras  # noqa: F401  chooses the backend before anything here imports Keras
