"""A corpus in Dagster: definitions, jobs, sensors and schedules.

`build` ties assets, checks, jobs, sensors and resources of one corpus together; `component` does the same from YAML.
`source_cursor` holds the sensor's position in a large source between ticks. Imports `assets`, `reporting`, `resources`
and the packages below them. Begin with `build`.
"""
