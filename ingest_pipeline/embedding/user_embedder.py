"""The embedder of the user: what it declares, and how it is found."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from ingest_pipeline.embedding.prompts import USER_MODEL
from ingest_pipeline.errors import ConfigurationError, EmbeddingInputError
from ingest_pipeline.extensions.loader import Extension, only, read_extensions
from ingest_pipeline.extensions.pool import Hook

OPTION: Final = "embedder"
_ROLE: Final = "ingest_pipeline.embedding.user_embedder_role"
_MAX_DIMENSIONS: Final = 65_536
_MAX_TEXTS: Final = 2_048
_MAX_CONCURRENCY: Final = 64
_WORD: Final = re.compile(r"[^\s;]+")


@dataclass(frozen=True)
class UserEmbedder:
    """An embedder of the user."""

    hook: Hook
    dimensions: int
    batch_size: int
    """Texts in one call, at most."""
    concurrency: int
    """Calls at once, at most, each in a process of its own."""

    @classmethod
    def load(cls, extension: Extension) -> UserEmbedder:
        """Load an embedder.

        Raises:
            ConfigurationError: It cannot be loaded or does not fit the protocol.
        """
        methods = ["dimensions", "embed_documents", "embed_query"]
        hook = Hook.load(extension, _ROLE, methods, EmbeddingInputError, is_confined=False, is_limited=False)
        if not _WORD.fullmatch(hook.fingerprint):
            raise ConfigurationError(
                f"{hook.name} has the fingerprint {hook.fingerprint!r:.60}, which contains a space or a semicolon",
                "It becomes part of the name of a model, so write it like `minilm-1`.",
            )
        return cls(
            hook,
            _number(hook, "dimensions", None, _MAX_DIMENSIONS),
            _number(hook, "batch_size", 128, _MAX_TEXTS),
            _number(hook, "concurrency", 1, _MAX_CONCURRENCY),
        )

    @property
    def model(self) -> str:
        """Name of the model in recipes, prices and the catalog."""
        return f"{USER_MODEL}{self.hook.fingerprint}"

    @property
    def key(self) -> str:
        """Names it among all embedders of the process without showing its arguments, which may be secrets."""
        extension = self.hook.extension
        if extension.given is None and not extension.arguments:
            return extension.path
        return f"{extension.path}#{hashlib.sha256(self.hook.program.introduction).hexdigest()[:12]}"


_loaded: Final[dict[str, UserEmbedder]] = {}


@lru_cache(64)
def load_embedder(extensions: tuple[Extension, ...]) -> UserEmbedder | None:
    """Load the embedder that an option names, once in a process. None: the option names none.

    Raises:
        ConfigurationError: It cannot be loaded or does not fit the protocol, or there are several.
    """
    extension = only(extensions)
    if extension is None:
        return None
    found = UserEmbedder.load(extension)
    _loaded[found.key] = found
    return found


def find_embedder(key: str) -> UserEmbedder | None:
    """The embedder of a key, or of the dotted path of a class that takes no arguments.

    Raises:
        ConfigurationError: It cannot be loaded, or no configuration of this process names it.
    """
    if key in _loaded:
        return _loaded[key]
    path, _, is_configured = key.partition("#")
    if is_configured:
        raise ConfigurationError(
            f"No configuration of this process names the embedder {path} with these arguments",
            "Build the resource with `build_resources`.",
        )
    return load_embedder(read_extensions(OPTION, path))


def _number(hook: Hook, name: str, default: int | None, most: int) -> int:
    value: object = getattr(hook.extension.load(), name, default)
    if type(value) is not int or not 1 <= value <= most:
        raise ConfigurationError(
            f"{hook.name} has {value!r:.60} as its `{name}`", f"Set a whole number from 1 to {most}."
        )
    return value
