"""The ends of runs as CloudEvents on a Kafka topic, keyed by run."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import orjson

from connectors.kafka_events import KafkaEvents
from permaflow.errors import SettingsError
from permaflow.plan import Json
from pipeline.settings import Settings
from pipeline.store import stats
from pipeline.store.database import Database

TYPE = "permaflow.run.finished"


class RunEvents:
    """Tells the topic of the settings. An event has the same id, however often it is sent."""

    def __init__(self, settings: Settings, database: Database) -> None:
        if not settings.kafka_bootstrap:
            raise SettingsError(
                "PERMAFLOW_KAFKA_RUN_TOPIC is set, but PERMAFLOW_KAFKA_BOOTSTRAP names no broker."
            )
        self._database = database
        self._events = KafkaEvents(settings.kafka_bootstrap, settings.kafka_run_topic)

    async def tell(self, run_ids: Sequence[UUID]) -> None:
        """Send the ends that are not settled yet. Raises `ConnectorError`, `StoreError`."""
        ended = await self._database.run(stats.ended, run_ids)
        if ended:
            await self._events.send([(str(run.id), cloud_event(run)) for run in ended])

    async def close(self) -> None:
        await self._events.close()


def cloud_event(run: stats.EndedRun) -> dict[str, Json]:
    """A CloudEvent 1.0 that says how a run ended.

    Its id is that of the run, and `<run>.<n>` for the end after its retry number n.
    """
    return {
        "specversion": "1.0",
        "id": f"{run.id}.{run.reopened}" if run.reopened else str(run.id),
        "type": TYPE,
        "source": f"/permaflow/{run.org}",
        "subject": str(run.workflow_id),
        "time": run.finished_at.isoformat(),
        "datacontenttype": "application/json",
        "data": {
            "run_id": str(run.id),
            "workflow_id": str(run.workflow_id),
            "version": run.version,
            "status": run.status,
            "source": run.source,
            "created_at": run.created_at.isoformat(),
            "finished_at": run.finished_at.isoformat(),
            "error": orjson.loads(run.error) if run.error else None,
        },
    }
