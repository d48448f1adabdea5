"""Awaits what methods of the user return, in the child process."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable
from functools import cache
from typing import cast


def result_of(returned: object) -> object:
    """What a method returned, awaited if it is awaitable.

    All calls share one event loop, because a client that an extension keeps belongs to the loop of its first call.
    """
    if not inspect.isawaitable(returned):
        return returned
    return _runner().run(_awaited(cast("Awaitable[object]", returned)))


async def _awaited(returned: Awaitable[object]) -> object:
    return await returned


@cache
def _runner() -> asyncio.Runner:
    return asyncio.Runner()
