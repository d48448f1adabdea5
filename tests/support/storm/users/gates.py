"""Gates in a storm: the settings of the writers that have some, and the user who decides about what they block."""

from __future__ import annotations

from functools import partial
from typing import Literal
from uuid import UUID

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.errors import ConfigurationError, StaleError, UnavailableError
from ingest_pipeline.saga.blocked import blocked_publications, drop_publication, release_publication
from tests.support.crash.crash import Child
from tests.support.storm.ledger import states_of
from tests.support.storm.readers import Reading
from tests.support.storm.stage import Stage
from tests.support.storm.users import jobs as storm_jobs
from tests.support.storm.users.commands import run_command
from tests.support.storm.users.writers import Acknowledgements, Victims, fates_of, outcome_of, start

Action = Literal["release", "drop"]


def decide_again_and_again(
    stage: Stage, victims: Victims, acknowledged: Acknowledgements, pause: float, *, with_commands: bool
) -> None:
    """Act as a user who releases and drops what did not pass its gates, until the storm is over."""
    random = stage.random("decisions")
    while not stage.calm.wait(random.uniform(0, pause)):
        try:
            with stage.corpus() as corpus:
                blocked = [one.saga for one in blocked_publications(corpus)]
        except UnavailableError:
            continue
        if not blocked:
            continue
        saga, action = random.choice(blocked), random.choice(["release", "drop"])
        if with_commands and random.random() < 0.5:
            said = run_command(stage, victims, "decision", ["gate", action, str(saga)], random)
            if said.status == 2 and "that did not pass its gates" not in said.text:
                stage.figures.violation(f"`gate {action}` ended with 2: {said.text[-300:]}")
        else:
            job = storm_jobs.release if action == "release" else storm_jobs.drop
            child = start(partial(Child, job, stage.address, saga, **fates_of(random)))
            version = outcome_of(stage, victims, child, action, random)
            if version is not None:
                acknowledged.versions([version])


def decide_finally(stage: Stage, corpus: Corpus, *, only: Action | None = None) -> int:
    """Release or drop each blocked publication, which has to be possible; returns how many there were.

    Args:
        stage: The stage of the storm, which is over.
        corpus: The corpus.
        only: The decision. None: the two in turn.
    """
    blocked = blocked_publications(corpus)
    for number, one in enumerate(blocked):
        action = only or ("release", "drop")[number % 2]
        try:
            if action == "drop":
                drop_publication(corpus, one.saga)
            else:
                _release(stage, corpus, one.saga)
        except (StaleError, ConfigurationError) as error:
            # Another publication of a document may end it meanwhile, or the same decision by a daemon.
            with corpus.database.transaction() as connection:
                state = states_of(connection, [str(one.saga)]).get(str(one.saga))
            if state == "blocked":
                stage.figures.violation(f"the blocked publication {one.saga} cannot be decided: {error}")
        stage.figures.count(f"gates: blocked at the end: {action}")
    return len(blocked)


def _release(stage: Stage, corpus: Corpus, saga: UUID) -> None:
    version = release_publication(corpus, saga)
    reading = Reading.at(corpus, version)
    shown = [fault for fault in reading.faults(stage.contents) if corpus.head().head_version == version]
    for fault in shown:
        stage.figures.violation(f"after the release of {saga}: {fault}")
