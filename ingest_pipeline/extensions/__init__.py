"""Code of the user: own parsers, chunkers, enrichers and embedders, found by dotted path, run in child processes.

`loader` finds an extension and checks its members, `pool` calls it, `worker` runs in the child, `protocol` is what both
sides say to each other. Imports `sandbox` and the modules below it. Begin with `loader`.
"""
