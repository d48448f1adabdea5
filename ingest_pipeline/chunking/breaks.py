"""Where text may be divided, from the strongest break to the weakest."""

from __future__ import annotations

import re
from typing import Final

NEWLINE: Final = r"(?>\r\n?|\n)"
# Begins with a choice of plain characters instead of `NEWLINE`, so that a search skips from newline to newline.
PARAGRAPH: Final = re.compile(rf"(?:\r\n|\n|\r(?!\n))(?:[ \t]*+{NEWLINE})+")
WEAKER_BREAKS: Final = [
    re.compile(NEWLINE),
    re.compile(r"[.!?]\s+|[。！？]\s*"),  # noqa: RUF001  # the full-width marks end sentences in Chinese and Japanese
    re.compile(r"\s+"),
    re.compile(r"(?<=\w)(?=\w)"),
    # Anywhere but inside what is seen as one character: joined emoji, variants and skin tones, combining accents.
    re.compile("(?<!\u200d)(?![\u0300-\u036f\u200d\ufe00-\ufe0f\U0001f3fb-\U0001f3ff])"),
]
