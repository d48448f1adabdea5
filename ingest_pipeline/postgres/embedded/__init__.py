"""A Postgres server for a user who has none.

The first process that needs the server starts it, and the last one stops it. `server` is the interface, `share`
registers a process as its user, `server_files` locks and flushes its files, `keeper` is the parent process of the
server, and `binaries` finds Postgres programs and an account that may run them. Begin with `server`.
"""
