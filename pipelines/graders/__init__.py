"""Was an answer right? Pure functions of text."""
