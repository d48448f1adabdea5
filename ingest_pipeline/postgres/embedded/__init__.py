"""A Postgres server for a user who has none.

The first process that needs it starts it, the last one stops it. `server` is the interface, `keeper` the program that
stays above the server, `binaries` finds Postgres programs and an account that may run them.
"""
