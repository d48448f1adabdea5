"""Times and attempts of the saga protocol, all in one place.

They are here, below `saga`, because opening an empty corpus needs them, too.
"""

from __future__ import annotations

HEARTBEAT_SECONDS = 5.0
"""How often a writer renews the heartbeat of its saga."""
SILENCE_SECONDS = 30.0
"""A writer without a heartbeat for this long is taken for dead: its saga is ended, and the writer is fenced."""
ATTEMPTS = 5
"""How often publishing, reconciling and opening a corpus are tried.

Each attempt after the first means that another writer died or woke up late at that moment, or that Postgres chose this
transaction to break a deadlock.
"""
PATIENCE_SECONDS = 240.0
"""No attempt to publish begins later than this after the first, however long the earlier ones waited for the lock."""
