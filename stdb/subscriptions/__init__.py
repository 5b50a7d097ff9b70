"""Subscriptions: compiled queries shared by all clients, and what each client sees of every transaction."""

from stdb.subscriptions.actor import SubscriptionActor
from stdb.subscriptions.fragment import ClientUpdate, Fragment, SetUpdate, TransactionEvent
from stdb.subscriptions.registry import Audience, Evaluation, Registry

__all__ = [
    "Audience",
    "ClientUpdate",
    "Evaluation",
    "Fragment",
    "Registry",
    "SetUpdate",
    "SubscriptionActor",
    "TransactionEvent",
]
