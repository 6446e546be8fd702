"""Rows to typed examples to batches. Numpy only; `datasets` is imported where a table or hub id needs it."""
