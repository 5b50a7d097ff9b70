"""Modules: what a database runs. `protocol` is what it needs of them, `python` loads those written in Python."""
