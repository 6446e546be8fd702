"""Reinforcement learning against a reward; `methods/` holds a file an algorithm."""
