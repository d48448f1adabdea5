"""Numbers that the command line takes, with a message that says which ones."""

from __future__ import annotations

from typing import Any

import click


class WholeNumber(click.IntRange):
    """A whole number of a range.

    Args:
        least: The smallest number.
        most: The largest one. None: there is no limit.
        wanted: What completes "is not" in the message. Absent, the range does.
    """

    def __init__(self, least: int, most: int | None = None, wanted: str = "") -> None:
        super().__init__(least, most)
        limits = f"of at least {least}" if most is None else f"from {least} to {most}"
        self._wanted = wanted or f"a whole number {limits}."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:  # noqa: ANN401  as click
        """The number.

        Raises:
            BadParameter: It is none, or out of the range. Click's own message calls a word "no valid integer range".
        """
        try:
            return int(super().convert(value, param, ctx))
        except click.BadParameter:
            self.fail(f"{str(value)!r} is not {self._wanted}", param, ctx)


VERSION = WholeNumber(1, 2**63 - 1, "the number of a version. `ingest-pipeline history` lists the versions.")
PORT = WholeNumber(0, 65535)
