"""Protocols of clients of 0.7 to 0.11: three generations behind two names (spec 03)."""
