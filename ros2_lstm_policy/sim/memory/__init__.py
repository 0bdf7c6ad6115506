"""Benchmark M: episodes that nobody can do who does not remember what was shown or done."""
