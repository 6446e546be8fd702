"""The algorithms of policy optimization, a file each; `registry.py` lists them."""
