"""The address of a queue: its url as AWS shows it, or the short form `sqs://ACCOUNT/NAME`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from ingest_pipeline.errors import ConfigurationError

_NAME = r"(?P<name>[A-Za-z0-9_-]{1,80}(\.fifo)?)"
_SHORT = re.compile(rf"sqs://((?P<account>\d{{12}})/)?{_NAME}")
_URL = re.compile(rf"(?P<endpoint>https?://[A-Za-z0-9.:-]+)/(?P<account>\d{{12}})/{_NAME}")
# sqs.eu-west-1.amazonaws.com, eu-west-1.queue.amazonaws.com, vpce-0a1b.sqs.eu-west-1.vpce.amazonaws.com
_REGION = re.compile(r"(?:sqs(?:-fips)?\.|//)(?P<region>[a-z]{2}(?:-[a-z]+)+-\d+)\.")


@dataclass(frozen=True, slots=True)
class QueueAddress:
    """The parsed setting."""

    name: str
    account: str | None = None
    """The account of the queue. None: that of the credentials."""
    url: str | None = None
    """None: SQS has to look the queue up by its name."""
    endpoint: str | None = None
    """Where requests are sent. None: where the environment or the region says."""
    region: str | None = None
    """The region that the url names. None: that of the environment."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the setting.

        Raises:
            ConfigurationError: It is no address of a queue.
        """
        if found := _SHORT.fullmatch(text):
            return cls(found["name"], found["account"])
        if found := _URL.fullmatch(text):
            region = _REGION.search(found["endpoint"])
            return cls(found["name"], found["account"], text, found["endpoint"], region["region"] if region else None)
        shown = re.sub(r"//[^/@\s]*@", "//", text).partition("?")[0]
        raise ConfigurationError(
            f"INGEST_EVENTS is {shown!r}, which is not the address of a queue",
            "Write the url of the queue, https://sqs.REGION.amazonaws.com/ACCOUNT/NAME, or sqs://ACCOUNT/NAME.",
        )
