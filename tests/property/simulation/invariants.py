"""The invariants of spec 07 section 12, by name: what each says, and the record of where it was checked.

Responsible for: the table `INVARIANTS`, `Checks`, which every check goes through, `InvariantBrokenError`.
Not responsible for: the checks, which stand where what they are about happens; the table says where.
"""

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

__all__ = ["INVARIANTS", "Checks", "Invariant", "InvariantBrokenError"]


class Invariant(NamedTuple):
    """What must hold, and the modules of the simulation that check it."""

    says: str
    checked_in: tuple[str, ...]


INVARIANTS = {
    "I1": Invariant("what a transaction sees is the model after its operations so far", ("operations", "probes")),
    "I2": Invariant("a rollback leaves rows, schema and offset as they were, and nobody is told", ("probes",)),
    "I3": Invariant("a delta is the difference of the states, disjoint; an empty one is nothing at all", ("probes",)),
    "I4": Invariant("offsets of changing transactions are 0, 1, 2, ... without gaps", ("probes",)),
    "I5": Invariant("a failed insert or update changes nothing and the transaction goes on", ("operations",)),
    "I6": Invariant(
        "a failing reducer leaves nothing; what it caught leaves its earlier writes", ("operations", "probes")
    ),
    "I7": Invariant("the final state is that of the committed reducers, one by one in offset order", ("simulation",)),
    "I8": Invariant("no two rows agree in the columns of a unique constraint, at any moment", ("operations", "probes")),
    "I9": Invariant("an identical row inserted is a success without change", ("operations",)),
    "I10": Invariant("what is taken out and put back, or updated there and back, is no change", ("probes",)),
    "I11": Invariant("indexes and constraints come and go without changing rows; duplicates refuse one", ("schema",)),
    "I12": Invariant("a generated value is never generated again", ("operations",)),
    "I13": Invariant("an explicit value is stored as it is", ("operations",)),
    "I14": Invariant("a generated value is told as it is stored", ("operations",)),
    "I15": Invariant("ids of new tables and indexes are fresh", ("schema",)),
    "I16": Invariant(
        "after a crash: a prefix with all that was durable; after damage: the same or a refusal", ("recovery",)
    ),
    "I17": Invariant(
        "as many transactions are recovered as there are records; none is applied twice", ("recovery", "storage")
    ),
    "I18": Invariant("snapshot and log together are the log alone, whatever state the snapshot is in", ("recovery",)),
    "I19": Invariant("recovery twice is recovery once; a clean end loses nothing", ("recovery",)),
    "I20": Invariant("what is ephemeral is gone after recovery, what is not is there", ("recovery",)),
    "I21": Invariant("who was connected is disconnected exactly once, before the first newcomer", ("probes", "life")),
    "I22": Invariant("a one-shot runs once, never after its row is gone; intervals go on", ("operations", "life")),
    "I23": Invariant("a failed publish leaves no trace; a reset leaves what init makes", ("schema",)),
    "I24": Invariant("a cache is what its queries return, at every offset", ("client",)),
    "I25": Invariant("an update is the difference of two results; nothing absent is deleted", ("client",)),
    "I26": Invariant(
        "the initial rows are exactly what came before the first update; messages are in order", ("client",)
    ),
    "I27": Invariant("the same is seen by the same; nobody sees what rules or privacy hide", ("client", "probes")),
    "I28": Invariant("sharing and pruning change nothing", ("probes",)),
    "I29": Invariant("confirmed clients see only what is durable, and all of it survives", ("client", "recovery")),
    "I30": Invariant("after an unsubscribe the cache is what the other queries return", ("client",)),
    "I31": Invariant("a slow or vanished client holds up nobody, and only it is cut", ("client", "life")),
    "I32": Invariant("a connection cancelled anywhere leaves the database whole and is disconnected once", ("life",)),
}


class InvariantBrokenError(AssertionError):
    """Something that must hold did not; `name` is the invariant."""

    def __init__(self, name: str, what: str) -> None:
        super().__init__(f"{name} ({INVARIANTS[name].says}): {what}")
        self.name = name


class Checks:
    """Counts what was checked and raises where it does not hold."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.broken: BaseException | None = None
        """What did not hold first; the server may have taken its exception for one of its own."""
        self.stop: Callable[[], None] = lambda: None
        """Called once something is broken: nothing after it means anything."""

    def holds(self, name: str, condition: bool, what: object = "") -> None:
        """Check an invariant; `what` is the text for the one that is broken, or a function that makes it."""
        self.counts[name] += 1
        if not condition:
            error = InvariantBrokenError(name, str(what() if callable(what) else what))
            self.failed(error)
            raise error

    def failed(self, error: BaseException) -> None:
        """Take in a failure."""
        if self.broken is None:
            self.broken = error
        self.stop()

    def equal(self, name: str, found: object, expected: object, what: object = "") -> None:
        """Check that two values are equal."""
        self.holds(name, found == expected, lambda: f"{what}: found {found!r}, expected {expected!r}")
