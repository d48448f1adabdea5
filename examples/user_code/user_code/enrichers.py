"""An enricher that reads front matter."""

import re
from collections.abc import Mapping

import yaml

from ingest_pipeline import EnrichableDocument

FRONT_MATTER = re.compile(r"\A---\r?\n(.*?)\r?\n---\r?\n", re.DOTALL)


class FrontMatter:
    """Takes the YAML at the beginning of a text as columns."""

    fingerprint = "front-matter-1"

    def enrich(self, document: EnrichableDocument) -> Mapping[str, object]:
        """Read the columns. A text without front matter has none."""
        found = FRONT_MATTER.match(document.text)
        values = yaml.safe_load(found[1]) if found else None
        return {str(name): value for name, value in values.items()} if isinstance(values, dict) else {}
