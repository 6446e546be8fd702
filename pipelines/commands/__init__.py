"""The commands of `gemma-keras`; a file a group."""
