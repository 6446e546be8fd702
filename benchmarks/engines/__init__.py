"""One file a library: each builds the model of a case and returns the function that is timed."""
