"""What differs between the source and head, before anything is read or embedded.

`source_comparison` compares the source with head, page by page or by name: the sensor, a run and the command line all
use it. `removal_guard`, `backoff` and `run_backoff` decide which plans have to wait. Imports `corpus` and the packages
below it; knows no saga. Begin with `source_comparison.Planner`.
"""
