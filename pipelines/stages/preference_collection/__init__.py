"""The rating step: responses sampled, a rater chooses."""
