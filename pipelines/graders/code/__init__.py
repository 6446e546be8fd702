"""Does a program that a model wrote pass its tests? The program runs in a sandbox and never sees them."""
