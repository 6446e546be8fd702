"""The kinds of stages, a folder each; `registry.py` lists them. They meet through folders on disk and never import each
other."""
