"""The types that every configuration is made of; knows no kind of stage."""
