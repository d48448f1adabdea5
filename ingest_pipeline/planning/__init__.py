"""Plans what has to be ingested or removed: compares the source with head, before anything is read or embedded.

`source_comparison` compares page by page or by name. The sensor, a run and the command line all use it.
`removal_guard`, `backoff` and `run_backoff` decide which plans have to wait. Imports `corpus` and the packages below
it, but not `saga`. Begin with `source_comparison.Planner`.
"""
