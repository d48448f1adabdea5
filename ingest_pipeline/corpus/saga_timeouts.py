"""Timeouts and numbers of attempts of the saga protocol.

They are in a layer below `saga`, because opening an empty corpus needs them too.
"""

from __future__ import annotations

HEARTBEAT_SECONDS = 5.0
"""How often a writer renews the heartbeat of its saga."""
SILENCE_SECONDS = 30.0
"""A writer without a heartbeat for this long is taken for dead: its saga is ended, and the writer is fenced."""
ATTEMPTS = 5
"""Maximum attempts to publish, reconcile or open a corpus.

An attempt is repeated if another writer died or resumed late at that moment, or if Postgres aborted this transaction to
break a deadlock.
"""
PATIENCE_SECONDS = 240.0
"""Seconds after the first attempt to publish, after which no other attempt begins."""
