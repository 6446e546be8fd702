"""What scores responses: gold rewards, functions, reward models, and sums of these."""
