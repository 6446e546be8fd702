"""A reward model on sets of preferences, set by set."""
