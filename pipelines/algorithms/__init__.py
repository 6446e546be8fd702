"""Formulas of reinforcement learning from human feedback: pure functions of arrays, no data, no input or output."""
