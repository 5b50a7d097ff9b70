"""Stripped prototypes: how fast the same machine can go when a server does nothing but the bare work."""
