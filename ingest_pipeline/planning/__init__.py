"""What differs between the source and head, before anything is read or bought.

`plan` compares one document, `compare` the whole source page by page: the sensor, a run and the command line all use
it. `removal_guard`, `backoff` and `run_backoff` decide what of a plan has to wait. Imports `corpus` and what lies
below it; knows no saga. Begin with `plan`.
"""
