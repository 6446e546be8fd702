"""What models say word for word of what they were trained on."""
