"""Jobs besides the ingest: rollback, another embedding model, batch jobs."""
