"""Judges that see two answers to a prompt and say which is better."""
