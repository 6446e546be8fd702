"""The machine below: files, paths, progress, memory, errors."""
