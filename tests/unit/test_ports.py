"""Ports that a test chooses before a server listens on them."""

from __future__ import annotations

import socket
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tests.support.servers.ports import free_port


def test_a_chosen_port_is_given_to_nobody_else_and_a_web_server_can_listen_on_it() -> None:
    port = free_port()
    with socket.socket() as stranger, pytest.raises(OSError, match="in use"):
        stranger.bind(("127.0.0.1", port))
    with socket.socket() as client, pytest.raises(ConnectionRefusedError):
        client.connect(("127.0.0.1", port))
    with HTTPServer(("127.0.0.1", port), BaseHTTPRequestHandler) as server:
        assert server.server_port == port
        with socket.create_connection(("127.0.0.1", port)):
            pass
