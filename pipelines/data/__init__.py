"""Data: reading rows, typed examples, packing and batches. Numpy only; `datasets` is imported where a table, folder or hub id needs it."""
