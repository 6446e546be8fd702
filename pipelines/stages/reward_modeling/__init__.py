"""A Bradley-Terry reward model from preferences."""
