"""Removes from the messages of an API what they quote of the texts that were sent."""

from __future__ import annotations

import re
from collections.abc import Sequence

# A message of the API that has so many characters in common with a text quotes it.
_QUOTED_CHARACTERS = 16
# A shorter text is a common word.
_SHORT_CHARACTERS = 4


def without_quotes(message: str, texts: Sequence[str]) -> str:
    """The message of an error, with an ellipsis for each part that it quotes of the texts: errors show no document.

    Args:
        message: The message in one line.
        texts: The texts that were sent.
    """
    lines = [line for text in texts if (line := " ".join(text.split()))]
    kept = list(message)
    for start in range(len(message)):
        part = message[start : start + _QUOTED_CHARACTERS]
        if len(part) == _QUOTED_CHARACTERS and any(part in line for line in lines):
            kept[start : start + _QUOTED_CHARACTERS] = [""] * _QUOTED_CHARACTERS
    shown = "".join(character or "\0" for character in kept)
    for line in lines:
        if _SHORT_CHARACTERS <= len(line) < _QUOTED_CHARACTERS:
            shown = re.sub(rf"(?<!\w){re.escape(line)}(?!\w)", "\0", shown)
    return re.sub("\0+", "\N{HORIZONTAL ELLIPSIS}", shown)
