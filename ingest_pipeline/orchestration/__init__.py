"""A corpus in Dagster: definitions, jobs, sensors and schedules.

`build` ties assets, checks, jobs, sensors and resources of one corpus together; `component` does the same from YAML.
`source_cursor` is the sensor's way through a large source, tick by tick. Imports `assets`, `reporting`, `resources`
and what lies below them. Begin with `build`.
"""
