"""The one training loop, its optimizer, adapters, and saving what was trained."""
