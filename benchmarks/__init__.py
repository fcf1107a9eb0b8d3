"""Measurements of Twofold beside its rivals, each ratio taken in one run: see docs/benchmarks.md."""
