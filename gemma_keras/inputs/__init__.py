"""Whatever a user hands to `fit` or `generate`, as arrays; the one padding."""
