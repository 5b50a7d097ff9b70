"""Benchmarks: `python -m bench NAME [--seconds S] [--rounds N] [--quick] [--json FILE]`."""
