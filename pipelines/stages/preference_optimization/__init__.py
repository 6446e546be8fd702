"""A policy from preferences, without a reward model and without sampling."""
