"""A Postgres server for a user who has none.

The first process that needs the server starts it, and the last one stops it. `server` is the interface, `keeper` is
the parent process of the server, and `binaries` finds Postgres programs and an account that may run them.
"""
