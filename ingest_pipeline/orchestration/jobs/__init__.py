"""Jobs other than the ingest: rollback, re-embedding and batch jobs."""
