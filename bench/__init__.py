"""Benchmarks: each prints JSON, none is part of the test suite."""
