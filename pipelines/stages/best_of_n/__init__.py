"""Answers chosen by a reward from several samples."""
