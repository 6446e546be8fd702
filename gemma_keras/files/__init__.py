"""Writing so that a reader sees the old or the new contents, never a part, whenever the writer dies."""
