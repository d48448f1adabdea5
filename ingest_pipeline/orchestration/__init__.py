"""A corpus in Dagster: definitions, jobs, sensors and schedules.

`build` ties assets, checks, jobs, sensors and resources of one corpus together; `component` does the same from YAML.
`cursor_position` is the position that the source sensor saves between ticks; what it compares is in `planning`. Imports
`assets`, `reporting`, `resources` and the packages below them. Begin with `build`.
"""
