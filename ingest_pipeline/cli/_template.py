"""A commented configuration file and a list of variables, made from the declaration of the options."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from typing import Any

from pydantic.fields import FieldInfo

from ingest_pipeline.config.options.corpus_options import CorpusOptions
from ingest_pipeline.config.project import CONFIGURATION_FILE

_WIDTH = 100
# Values that must not be in a file that is committed.
_SECRETS = ("database_url", "embedding_api_key", "rerank_api_key")
# Of options whose default depends on others, or which have none.
_EXAMPLES = {
    "lancedb_uri": "s3://company/tables",
    "embedding_dimensions": 256,
    "embedding_base_url": "http://localhost:11434/v1",
    "max_bytes": 50_000_000,
    "rerank_model": "rerank-v3.5",
}
_VARIABLES = {
    "INGEST_DATABASE_URL": "Postgres of the catalog, as postgresql://USER:PASSWORD@HOST:5432/DATABASE. Without it, an "
    "embedded Postgres is started.",
    "OPENAI_API_KEY": "Key of the embedding API. The local model needs none.",
    "OPENAI_BASE_URL": "Address of another API that speaks OpenAI's protocol.",
    "INGEST_RERANK_API_KEY": "Key of the reranker, if it needs one.",
    "AWS_ACCESS_KEY_ID": "Credentials of S3, if the files or the tables are there and the machine has none of its own.",
    "AWS_SECRET_ACCESS_KEY": "",
    "AWS_REGION": "",
    "AWS_ENDPOINT_URL": "The address of another store that speaks S3's protocol.",
}


def configuration(corpus: str, source: str) -> str:
    """The content of the configuration file of one corpus: what is set, and every other option as a comment."""
    lines = [
        "# Corpora of this folder and those below it. Every option but `source` has a default; a comment shows it, or",
        "# an example. A variable INGEST_* overrides the option of that name, and --corpus chooses one of several",
        "# corpora. Passwords and keys belong into variables or into the file .env, see .env.example.",
        "",
        f"[corpora.{corpus}]",
    ]
    options = dict(CorpusOptions.model_fields)
    lines += [*_comment(options.pop("source").description or ""), f"source = {_toml(source)}"]
    for name, option in options.items():
        if name != "corpus" and name not in _SECRETS:
            lines += ["", *_comment(option.description or ""), f"# {name} = {_toml(_shown(name, option))}"]
    return "\n".join(lines) + "\n"


def variables() -> str:
    """The content of `.env.example`."""
    lines = [
        "# Copy this file to .env and fill in what you need. ingest-pipeline reads .env beside",
        f"# {CONFIGURATION_FILE}; variables that are set already count more. Never commit .env.",
    ]
    for name, description in _VARIABLES.items():
        lines += [*([""] if description else []), *_comment(description), f"# {name}="]
    return "\n".join(lines) + "\n"


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, _WIDTH)]


def _shown(name: str, option: FieldInfo) -> object:
    """The default of an option if it says something, or else an example."""
    default = option.get_default(call_default_factory=False)
    if option.default_factory is None and default not in (None, "", (), [], {}):
        return default
    return _EXAMPLES[name] if name in _EXAMPLES else (option.examples or [""])[0]


def _toml(value: Any) -> str:  # noqa: ANN401  any value of TOML
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{name} = {_toml(one)}" for name, one in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
