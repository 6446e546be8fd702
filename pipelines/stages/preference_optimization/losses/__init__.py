"""The losses of preference optimization, a file each; `registry.py` lists them."""
