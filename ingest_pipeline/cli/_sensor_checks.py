"""What Dagster knows of the sensors of a corpus: whether they are on, and how their last ticks ended."""

from __future__ import annotations

from collections.abc import Iterator

from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import InstigatorStatus, TickStatus

from ingest_pipeline.cli import _dagster
from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.orchestration.queue_readers import is_read
from ingest_pipeline.resources.names import DagsterNames


def examine_sensors(settings: CorpusConfig) -> Iterator[tuple[bool, str, str]]:
    """Yield whether the daemon and each sensor are as they should be, what they are, and what to do.

    Args:
        settings: As `_session.postgres` yields them.
    """
    names = DagsterNames.of(settings)
    with _dagster.instance(settings) as instance:
        status = instance.get_daemon_statuses(["SENSOR"])["SENSOR"]
        if not status.healthy:
            yield (
                False,
                "Dagster's daemon is not running, so no sensor watches the source.",
                "Run `ingest-pipeline ui` or `dagster-daemon run`, or ingest with `ingest-pipeline ingest`.",
            )
        known = {state.name: state for state in instance.all_instigator_state(instigator_type=InstigatorType.SENSOR)}
        if settings.events and not is_read(instance, names):
            yield (
                False,
                "Nothing reads the event queue, so the source is listed every 30 seconds.",
                f"Turn the sensor {names.name('event_sensor')} on, or run `ingest-pipeline listen`.",
            )
        for name in (names.name("source_sensor"), names.name("recovery_sensor"), names.name("event_sensor")):
            state = known.get(name)
            if state is None:
                continue
            if state.status == InstigatorStatus.STOPPED:
                yield False, f"{name} is off.", "Turn it on in Dagster, under Automation."
                continue
            ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1)
            if ticks and ticks[0].status == TickStatus.FAILURE:
                reason = ticks[0].error.message.strip().splitlines()[-1] if ticks[0].error else "no reason is recorded"
                yield False, f"The last tick of {name} failed: {reason}", "Correct the cause. The sensor tries again."
            elif status.healthy:
                yield True, f"{name} is on.", ""
