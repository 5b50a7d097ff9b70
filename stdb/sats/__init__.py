"""Algebraic types and values: BSATN and JSON codecs, keys, names, identities (spec 01)."""
