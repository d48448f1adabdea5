"""The processes that share an embedded server: the first starts it, and it ends with the last."""

import contextlib
import gc
import os
import signal
import subprocess
import threading
from pathlib import Path

import psycopg
import pytest

from ingest_pipeline.postgres.embedded.server import EmbeddedPostgres
from tests.support.servers.embedded_users import ask, output_of, parent_of, remember, user_process, wait_until_gone

FORKING_USER = """
import os, sys
from pathlib import Path
from ingest_pipeline.postgres.embedded.server import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]))
server.start()
wait_for_parent, parent_ends = os.pipe()
wait_for_child, child_tried = os.pipe()
if os.fork() == 0:
    os.close(parent_ends)
    server.release()
    os.write(child_tried, b"x")
    os.read(wait_for_parent, 1)
    os._exit(0)
os.read(wait_for_child, 1)
runs = server.postmaster_pid() is not None
server.release()
print(f"runs while its user lives: {runs}, after: {server.postmaster_pid() is not None}")
"""


def url_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def switches(status: Path) -> int:
    """How often the process went to sleep."""
    return int(status.read_text().partition("\nvoluntary_ctxt_switches:")[2].split()[0])


def test_starting_again_returns_the_same_url(server: EmbeddedPostgres) -> None:
    assert server.start() == server.start()


def test_a_second_process_finds_the_server(server: EmbeddedPostgres, directory: Path) -> None:
    url = server.start()
    pid = server.postmaster_pid()
    with user_process(directory) as other:
        assert url_of(other) == url
        assert server.postmaster_pid() == pid


def test_two_processes_that_start_at_once_get_one_server(directory: Path) -> None:
    with user_process(directory) as one, user_process(directory) as other:
        assert url_of(one) == url_of(other) != ""


def test_the_last_user_stops_the_server(server: EmbeddedPostgres, directory: Path) -> None:
    url = server.start()
    with user_process(directory) as other:
        assert url_of(other) == url
        server.release()
        assert server.postmaster_pid() is not None
        other.communicate("\n")
        assert other.returncode == 0
    assert server.postmaster_pid() is None


def test_a_process_stays_a_user_when_it_drops_the_object(directory: Path, server: EmbeddedPostgres) -> None:
    EmbeddedPostgres(directory).start()
    gc.collect()
    server.start()
    server.release()
    assert server.postmaster_pid() is not None


def test_two_users_in_one_process_count_as_two(server: EmbeddedPostgres, directory: Path) -> None:
    other = EmbeddedPostgres(directory)
    assert server.start() == other.start()
    server.release()
    server.release()
    assert other.postmaster_pid() is not None
    other.release()
    assert other.postmaster_pid() is None


def test_a_user_that_was_killed_is_not_counted_and_its_successor_has_the_server_at_the_same_url(
    server: EmbeddedPostgres, directory: Path
) -> None:
    with user_process(directory) as first:
        url = url_of(first)
        first.kill()
        first.wait()
    assert server.start() == url
    server.release()
    assert server.postmaster_pid() is None


@pytest.mark.promise("embedded-postgres")
def test_a_server_whose_last_user_was_killed_ends_with_its_keeper_and_keeps_what_was_committed(
    server: EmbeddedPostgres, directory: Path
) -> None:
    with user_process(directory) as first, user_process(directory) as second:
        url = url_of(first)
        assert url_of(second) == url
        remember(url)
        pid = server.postmaster_pid()
        assert pid is not None
        keeper = parent_of(pid)
        for user in (first, second):
            assert server.postmaster_pid() == pid
            user.kill()
            user.wait()
        wait_until_gone(pid)
        wait_until_gone(keeper)
    assert "database system is shut down" in (directory / "server.log").read_text()
    assert ask(server.start(), "SELECT answer FROM remembered") == "42"


def test_a_server_ends_with_its_keeper(server: EmbeddedPostgres) -> None:
    url = server.start()
    pid = server.postmaster_pid()
    assert pid is not None
    os.kill(parent_of(pid), signal.SIGKILL)
    wait_until_gone(pid)
    assert server.start() == url


def test_a_server_that_is_used_does_not_end(server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through many looks of its keeper, which a look of ours counts."""
    server.start()
    pid = server.postmaster_pid()
    assert pid is not None
    looks = Path(f"/proc/{parent_of(pid)}/status")
    before = switches(looks)
    while switches(looks) < before + 8:
        threading.Event().wait(0.1)
    assert server.postmaster_pid() == pid


@pytest.mark.usefixtures("server")
def test_a_forked_child_is_no_user_until_it_starts(directory: Path) -> None:
    assert output_of(FORKING_USER, directory) == "runs while its user lives: True, after: False"


def test_committed_data_survive_a_killed_postmaster(server: EmbeddedPostgres) -> None:
    url = server.start()
    remember(url)
    pid = server.postmaster_pid()
    assert pid is not None
    with contextlib.suppress(psycopg.OperationalError), psycopg.connect(url):
        os.kill(pid, signal.SIGKILL)
        assert server.start() == url
    assert ask(url, "SELECT answer FROM remembered") == "42"
