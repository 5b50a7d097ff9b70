"""Benchmarks: `python -m bench NAME [--seconds S] [--rounds N] [--json FILE]`."""
