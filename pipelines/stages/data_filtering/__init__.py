"""Rows in, rows out: what a model should not learn from is dropped, each with its reason."""
