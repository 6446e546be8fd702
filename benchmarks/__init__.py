"""Side-by-side measurements against KerasHub, transformers and TRL; `make bench` runs them."""
