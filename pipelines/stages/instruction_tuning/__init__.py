"""Supervised tuning on prompts and responses."""
