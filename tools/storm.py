"""The storm: Dagster, writers, readers and an auditor run under random disruptions; then every promise is checked.

    python -m tools.storm --minutes 20 --seed 7 --json storm.json

The exit status is 1 if a promise was broken. The seed determines all random choices but not their timing, so it repeats
the kinds of disruptions and not the exact storm.
"""

from __future__ import annotations

import argparse
import math
import os
import secrets
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from rich.console import Console

from ingest_pipeline.errors import UnavailableError, VersionGoneError
from ingest_pipeline.maintenance.audit import audit
from tests.support.servers.ports import free_port
from tests.support.storm.dagster import Dagster
from tests.support.storm.driver import Driver
from tests.support.storm.figures import Figures
from tests.support.storm.killer import Killer
from tests.support.storm.latest_reader import read_latest
from tests.support.storm.processes import adopt_orphans, command_line, descendants, kill_below
from tests.support.storm.readers import read
from tests.support.storm.settling import find_unnoticed, judge, settle, tend
from tests.support.storm.stage import Stage, stage
from tests.support.storm.users.erasures import erase_again_and_again
from tests.support.storm.users.gates import decide_again_and_again
from tests.support.storm.users.notices import Postman, listen_again_and_again
from tests.support.storm.users.writers import (
    ENDING_SECONDS,
    Acknowledgements,
    Victims,
    backfill,
    run_command_line,
    run_library,
)

_AUDIT_EVERY = 15.0
_WATCHERS_SECONDS = 20.0
# Violations that a death or an active writer may cause for a while, and that settling has to remove.
_OPEN_DURING_STORM = {"no orphan files", "nothing in doubt", "latest is head"}


@dataclass(frozen=True, slots=True)
class Load:
    """The intensity and the length of a storm."""

    minutes: float
    least_minutes: float
    """After which it ends as soon as `_ENOUGH` has happened."""
    documents: int
    readers: int
    library_writers: int
    change_every: float
    """Maximum number of seconds between two changes of files."""
    write_every: float
    """Maximum number of seconds between two programs of one writer."""
    hurt_every: float
    """Maximum number of seconds between two disruptions."""
    decide_every: float
    """Maximum number of seconds between two decisions about blocked publications."""
    erase_every: float
    """Maximum number of seconds between two erasures."""
    backfill_every: float
    ticks: int
    """Sensor ticks within which everything has to settle."""
    daemon: bool
    """Run Dagster's daemon and web server. Otherwise only the command line starts Dagster runs."""


LONG = Load(20.0, math.inf, 24, 2, 2, 2.5, 8.0, 6.0, 20.0, 40.0, 45.0, 10, daemon=True)
SHORT = Load(5.0, 0.3, 8, 1, 2, 1.0, 1.0, 1.5, 3.0, 8.0, 0.0, 3, daemon=False)


_ENOUGH = {
    "acknowledged: publications of library writers": 1,
    "embedding faults": 1,
    "killed": 1,
    "reads: of a new head": 4,
}
"""What a short storm waits for: on a fast machine it has happened long before, on a slow one it takes minutes."""


class Crew:
    """The threads of a storm; an exception in one of them is a violation."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._threads: list[threading.Thread] = []

    def add(self, name: str, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=self._guard, args=(name, work), name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def join(self) -> None:
        end = time.monotonic() + ENDING_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
            if thread.is_alive():
                self._stage.figures.violation(f"the {thread.name} does not end")

    def _guard(self, name: str, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception:  # noqa: BLE001  the storm reports every exception
            self._stage.figures.violation(f"the {name} died: {traceback.format_exc()[-1500:]}")


def storm(seed: int, load: Load, *, on_s3: bool) -> Figures:
    """Run a storm, let everything settle, and judge the result."""
    adopt_orphans()
    with stage(seed, on_s3=on_s3) as place:
        try:
            _blow_and_judge(place, load)
        except Exception:  # noqa: BLE001  the figures so far are reported with the traceback
            place.figures.violation(f"the storm itself broke: {traceback.format_exc()[-2000:]}")
        finally:
            place.calm.set()
    _end_everything(place.figures)
    return place.figures


def _blow_and_judge(place: Stage, load: Load) -> None:
    driver = Driver(place.files, place.contents, load.documents, place.random("driver"), place.figures)
    for _ in range(load.documents):
        driver.once()
    with ExitStack() as stack:
        postman = _postman(place) if load.daemon and place.s3 is not None else None
        dagster = stack.enter_context(_dagster(place)) if load.daemon else None
        acknowledged = Acknowledgements(place)
        place.fail_share()
        _blow(place, load, driver, dagster, postman, acknowledged)
        place.fail_share(0)
        if dagster is not None:
            if postman is not None:
                find_unnoticed(place)
            settle(place, dagster, load.ticks)
        else:
            tend(place, load.ticks)
        judge(place, acknowledged, dagster)


def _postman(place: Stage) -> Postman:
    """Notices of the source, for Dagster and the listener."""
    postman = Postman(place)
    place.events = postman.address
    return postman


@contextmanager
def _dagster(place: Stage) -> Generator[Dagster]:
    dagster = Dagster(place.environment("dagster", gated=True, events=True), place.directory, free_port())
    place.reaper.spare(dagster.pid)
    try:
        dagster.wait_until_up()
        yield dagster
        if not dagster.lives():
            place.figures.violation("the web server or the daemon ended by itself")
    finally:
        if not dagster.stop():
            place.figures.violation("`ui` did not end after SIGINT")
        if place.figures.violations:
            keep_log(place.directory, place.figures)


def _blow(  # noqa: PLR0917  everything that takes part
    place: Stage,
    load: Load,
    driver: Driver,
    dagster: Dagster | None,
    postman: Postman | None,
    acknowledged: Acknowledgements,
) -> None:
    victims = Victims()
    crew = Crew(place)
    for number in range(load.readers):
        crew.add(f"reader {number}", partial(read, place, f"reader {number}"))
    crew.add("reader of latest", partial(read_latest, place, "reader of latest"))
    for number in range(load.library_writers):
        name = f"library writer {number}"
        crew.add(name, partial(run_library, place, victims, acknowledged, name, load.write_every))
    crew.add("command line", partial(run_command_line, place, victims, acknowledged, load.write_every))
    daemon = dagster is not None
    decide = partial(decide_again_and_again, place, victims, acknowledged, load.decide_every, with_commands=daemon)
    crew.add("user who decides", decide)
    erase = partial(erase_again_and_again, place, victims, load.erase_every, load.documents, with_commands=daemon)
    crew.add("user who erases", erase)
    if postman is not None:
        crew.add("postman", postman.run)
        crew.add("listener", partial(listen_again_and_again, place, victims))
    if dagster is not None:
        crew.add("backfills", partial(backfill, place, dagster, load.backfill_every))
    crew.add("driver", partial(_drive, place, driver, load.change_every))
    crew.add("auditor", partial(_audit, place))
    crew.add("killer", Killer(place, victims, dagster, load.hurt_every).run)
    began = time.monotonic()
    while time.monotonic() < began + 60 * load.minutes and (dagster is None or dagster.lives()):
        time.sleep(0.5)
        is_long_enough = time.monotonic() > began + 60 * load.least_minutes
        if is_long_enough and all(place.figures.total(what) >= least for what, least in _ENOUGH.items()):
            break
        if dagster is not None:
            place.reaper.spare(dagster.pid)
    place.calm.set()
    crew.join()
    driver.restore_bad_files()


def _drive(place: Stage, driver: Driver, pause: float) -> None:
    random = place.random("pauses")
    while not place.calm.wait(random.uniform(0, pause)):
        driver.once()


def _audit(place: Stage) -> None:
    while not place.calm.wait(_AUDIT_EVERY):
        try:
            with place.corpus() as corpus:
                report = audit(corpus)
        except (UnavailableError, VersionGoneError):
            place.figures.count("audits: refused by a store that was down")
            continue
        place.figures.count("audits: beside writers")
        for violation in report.violations:
            if violation.invariant not in _OPEN_DURING_STORM:
                place.figures.violation(f"audit at head {report.head_version}: {violation}")


def keep_log(directory: Path, figures: Figures) -> None:
    """Keep the log of `ui` beside the storm's folder, which is deleted. The log is not part of the figures."""
    kept = directory.with_name(f"{directory.name}-ui.log")
    shutil.copyfile(directory / "ui.log", kept)
    figures.note(f"the log of `ui` is {kept}")


def _end_everything(figures: Figures) -> None:
    """Check that no process remains, after keepers have had time to notice that their parents have ended."""
    end = time.monotonic() + _WATCHERS_SECONDS
    while (left := _left_behind()) and time.monotonic() < end:
        time.sleep(0.5)
    for line in left.values():
        figures.violation(f"a process was left behind: {line[:150]}")
    kill_below(os.getpid())


def _left_behind() -> dict[int, str]:
    """Command lines of processes that should have ended. Our own fork server is excluded, because it ends with us."""
    ours = ("multiprocessing.forkserver", "multiprocessing.resource_tracker")
    lines = {pid: command_line(pid).replace(b"\0", b" ").decode(errors="replace") for pid in descendants(os.getpid())}
    return {pid: line for pid, line in lines.items() if line and not any(name in line for name in ours)}


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Disrupt processes and connections at random, then check that everything settles."
    )
    parser.add_argument("--minutes", type=float, default=None)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--json", type=Path, default=None, metavar="FILE")
    parser.add_argument(
        "--local", action="store_true", help="Source and table in local folders instead of the S3 server."
    )
    parser.add_argument(
        "--short",
        action="store_true",
        help="Until each kind of event has happened, in local folders, without Dagster's daemon.",
    )
    arguments = parser.parse_args()
    seed = secrets.randbelow(1 << 31) if arguments.seed is None else arguments.seed
    console = Console()
    load = SHORT if arguments.short else LONG
    load = load if arguments.minutes is None else replace(load, minutes=arguments.minutes)
    console.print(f"storm of {load.minutes:g} minutes, seed {seed}")
    figures = storm(seed, load, on_s3=not (arguments.local or arguments.short))
    figures.show(console)
    if arguments.json is not None:
        figures.write(arguments.json)
    return 1 if figures.violations else 0


if __name__ == "__main__":
    sys.exit(main())
