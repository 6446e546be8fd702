"""A judge that sees two answers to a prompt says which is better."""
