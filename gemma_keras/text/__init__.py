"""Text to token ids and back: the tokenizer, chat turns, infilling, and what a folder says about its tokenizer."""
