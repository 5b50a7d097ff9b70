"""Run a module or a whole server inside a test: in memory, in virtual time, with faults when asked for."""
