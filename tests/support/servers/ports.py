"""Ports for servers that a test starts later, in this process or in another one."""

import socket


def free_port() -> int:
    """A port on which nothing listens, and which no other process gets while this process runs.

    A server with the option `SO_REUSEADDR`, as all web servers have, can listen on it.
    """
    kept = reserve()
    port = int(kept.getsockname()[1])
    kept.detach()  # it stays open, and Python does not complain of it at the end
    return port


def reserve() -> socket.socket:
    """A socket that keeps a free port until it is closed, see `free_port`."""
    kept = socket.socket()
    # With this option on both, the kernel lets another socket bind the port by its number as long as none listens, but
    # gives it to no socket that asks for any port.
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    kept.bind(("127.0.0.1", 0))
    return kept
