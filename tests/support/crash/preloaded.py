"""What the fork server imports and loads once for all its children."""

# ruff: noqa: E402, F401, I001
# pyright: reportUnusedImport=false
from __future__ import annotations

import gc

gc.disable()

# The client of the embedding API imports these at its first use.
import anyio._backends._asyncio
import anyio.streams.memory
import httpcore2
import importlib.resources.readers
import openai.resources.embeddings
import openai.resources.files

import tests.support.crash.jobs
from ingest_pipeline.embedding.certificates import trusted_certificates
from ingest_pipeline.postgres.sql import migrations, query
from ingest_pipeline.processes import is_heap_frozen
from tests.support.dagster.preloaded import end_of_start

end_of_start()
trusted_certificates()
migrations()
query("keepalive")

# What children share would be copied for each of them if the garbage collector visited it.
gc.freeze()
gc.enable()
is_heap_frozen()  # counts, which no child has to repeat
