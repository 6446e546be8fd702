"""Figures from plain numbers: metrics, intervals, side-by-side verdicts. Light: numpy only."""
