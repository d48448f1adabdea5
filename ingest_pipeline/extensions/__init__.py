"""Extensions: parsers, chunkers, enrichers and embedders of the user, named by dotted path, run in child processes.

`loader` finds an extension and checks its members. `pool` calls it from the parent process, `worker` runs in the child
process, and `protocol` has the messages between the two. The package of each kind has a module named `user_..._role`,
which the worker imports to call that kind. Imports `sandbox` and the modules below it. Begin with `loader`.
"""
