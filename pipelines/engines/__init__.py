"""Other people's engines behind our stages."""
