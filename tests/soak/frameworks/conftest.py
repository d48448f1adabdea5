"""The corpora of the tests of `integrations`."""

from tests.integration.integrations.conftest import endpoint, guarded, libraries, library

__all__ = ["endpoint", "guarded", "libraries", "library"]
