"""lm-evaluation-harness: its tasks, prompts and metrics, with a Gemma of ours behind them."""
