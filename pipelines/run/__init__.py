"""Runs a workflow in its folder: keys, lock, a stage in its process."""
