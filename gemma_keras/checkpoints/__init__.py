"""Model files in and out: one file a format, numpy arrays on this side; nothing here imports Keras."""
