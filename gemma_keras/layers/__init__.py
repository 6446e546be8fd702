"""The parts of a Gemma decoder, one concept a file."""
