"""Benchmarks by name: where lm-eval's task of each lies, where its rows are, and the suites that published figures come
from."""

from pipelines.tasks.benchmarks import gemma_3_270m_card, gemma_paper, gemma_safety
from pipelines.tasks.benchmarks.base import Benchmark, Entry, Suite
from pipelines.tasks.benchmarks.sets import BENCHMARKS

SUITES: dict[str, Suite] = {one.SUITE.name: one.SUITE for one in (gemma_paper, gemma_3_270m_card, gemma_safety)}

__all__ = ["BENCHMARKS", "SUITES", "Benchmark", "Entry", "Suite"]
