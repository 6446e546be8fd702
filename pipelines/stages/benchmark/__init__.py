"""Models on benchmarks, beside published figures."""
