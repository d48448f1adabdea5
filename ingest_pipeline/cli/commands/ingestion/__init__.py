"""Commands that bring a corpus up to date: `plan`, `ingest`, `retry`, `listen`, `batch`, `reembed` and `gate`."""
