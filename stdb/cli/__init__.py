"""The command line, `python -m stdb …`: serve, publish, call, sql, logs, subscribe, describe and their kin.

Names and flags follow the official command line where it has them (spec 05 part 3). `main` is where it begins; nothing
is imported here, so that `stdb.testing` packs modules with `pack` alone.
"""
