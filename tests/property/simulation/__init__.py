"""The whole server in one deterministic process: clients, network, disk, clock and scheduling follow from one number.

`determinism` takes chance out, `world` and `operations` make a module, `pausing` has its transactions come back
half-way, `model` says what must be true of it, `network` and `storage` are the world outside with its faults, `probes`
look into the server, `client` is a client that checks what it is told, in the dialects of `wire` and, of 0.11 and
older, `legacy`, `recovery` and `schema` check launches and updates, `invariants` names what is checked, `simulation`
plays one seed, `life` one life of the server within it, `mutations` are bugs to be found.

    python -m tests.property.simulation --seconds 600        look for a seed that fails
    python -m tests.property.simulation --seed 4711          play one, and print what happened
"""
