"""Codec profiles: what the generations of the protocol write differently for the one model of values.

Responsible for: the differences, each as one named fact.
Not responsible for: applying them (`bsatn`, `json`, `meta`).

Source: spec 01 sections 1, 4 and 5; spec 03 section 13 for values of 1.x and 2.x in the older layouts.
"""

from dataclasses import dataclass

from stdb.sats.types import BYTES, U64, Element, Product, Sum

__all__ = ["MODERN", "OLD_ADDRESS", "OLD_IDENTITY", "OLD_SCHEDULE_AT", "STORED", "V0_11", "V0_12", "Profile"]

OLD_IDENTITY = Product((Element("__identity_bytes", BYTES),))
OLD_ADDRESS = Product((Element("__address_bytes", BYTES),))
OLD_SCHEDULE_AT = Sum((Element("Time", U64), Element("Interval", U64)))


@dataclass(frozen=True, slots=True)
class Profile:
    """One generation. Values in memory are the same in all of them."""

    name: str
    is_legacy: bool
    """Identity and Address are length-prefixed bytes in the order of their text; Timestamp and TimeDuration are U64
    (negative ones become 0); a bool byte other than 0 is true."""
    schedule_is_swapped: bool
    """ScheduleAt writes tag 0 for a time and 1 for an interval."""
    sum_is_object: bool
    """JSON without names writes a sum as {"tag": payload}; a pair [tag, payload] is not understood; {} is none."""
    is_nested_meta: bool
    """Scalars, Array and Map are nested under Builtin in the meta type."""
    has_map: bool
    """Map exists, also in the tags of the meta type."""


MODERN = Profile("1.x and 2.x", False, False, False, False, False)
STORED = Profile("the catalogue", False, False, False, False, True)
"""As 1.x and 2.x, but a Map, which modules of 0.11 may have, is still one."""
V0_11 = Profile("0.11", True, True, True, True, True)
V0_12 = Profile("0.12", True, False, False, False, True)
