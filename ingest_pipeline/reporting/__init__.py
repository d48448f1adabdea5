"""Writes reports to Dagster's event log, and reads from it.

`materializations` and `replay` report publications whose run died before it reported them; `run_status` ends runs whose
process is gone; `partitions` keeps Dagster's partitions equal to those at head; `data_versions` decides what is stale.
Imports `maintenance`, `ingestion` and the packages below them. Begin with `materializations`.
"""
