"""What Dagster's event log is told, and what is read from it.

`materializations` and `replay` report publications whose run died before it could; `run_status` ends runs whose
process is gone; `partitions` keeps Dagster's partitions as head has them; `data_versions` says what is stale. Imports
`maintenance`, `ingestion` and what lies below them.
"""
