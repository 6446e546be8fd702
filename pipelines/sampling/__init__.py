"""Prompts, rollouts, the reference policy, exact KL."""
