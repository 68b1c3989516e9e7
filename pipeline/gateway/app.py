"""The application: every door of the gateway, with the scope that it needs."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from fastapi import FastAPI
from starlette.responses import JSONResponse, PlainTextResponse, Response

from pipeline.bus.subjects import live, notice
from pipeline.drawing.formats import FORMATS
from pipeline.gateway import shapes, shapes_catalogue
from pipeline.gateway.action_doors import open_documents, open_notifications, open_secrets
from pipeline.gateway.approval_doors import open_approvals, open_groups
from pipeline.gateway.auth import PUBLIC, Guard
from pipeline.gateway.catalogue import ROOT as CATALOGUE
from pipeline.gateway.catalogue import CatalogueDoor
from pipeline.gateway.controls import Controls
from pipeline.gateway.definitions import ROOT as DEFINITIONS
from pipeline.gateway.definitions import Definitions
from pipeline.gateway.doors import Doors
from pipeline.gateway.dry_run_views import DryRunBody, DryRunView
from pipeline.gateway.dry_runs import DryRuns
from pipeline.gateway.error_handlers import handle_errors
from pipeline.gateway.feed import Feed
from pipeline.gateway.front import Front
from pipeline.gateway.health import Health
from pipeline.gateway.metrics import PATH as METRICS
from pipeline.gateway.metrics import Metrics
from pipeline.gateway.migrations import Migrations
from pipeline.gateway.notification_streams import NotificationStreams
from pipeline.gateway.openapi import describe
from pipeline.gateway.ports import Ports
from pipeline.gateway.published import OWN_SCHEMAS, SCHEMA_JSON, SCHEMAS, Published
from pipeline.gateway.records import ROOT as RECORDS
from pipeline.gateway.records import Records
from pipeline.gateway.reruns import Reruns
from pipeline.gateway.resolving import Resolving
from pipeline.gateway.run_documents import RunDocument, RunDocuments
from pipeline.gateway.run_starts import ROOT as RUNS
from pipeline.gateway.run_starts import RunStarts
from pipeline.gateway.runs import Runs
from pipeline.gateway.statuses import Statuses
from pipeline.gateway.stream import Streams
from pipeline.gateway.webhooks import PATH as WEBHOOK
from pipeline.gateway.webhooks import Webhooks
from pipeline.ops import Ops
from pipeline.store import keys
from pipeline.wire import decode_live, decode_noticed


class Application:
    """The ASGI application, and what a test or a document wants to know of it."""

    def __init__(self, ports: Ports, ops: Ops) -> None:
        self.api = FastAPI(
            title="Permaflow",
            openapi_url=None,
            docs_url=None,
            redoc_url=None,
            redirect_slashes=False,
            telemetry={"tracing": False, "metrics": False, "logs": False, "operation_spans": False},
        )
        self.api.router.routes.clear()
        self.guard = Guard(lambda text: ports.pool.run(keys.verify, text))
        self.doors = Doors(self.api, self.guard)
        handle_errors(self.api, self.doors)
        _open_definitions(self.doors, ports)
        self.feed = Feed(ports.bus, live, _runs_of)
        self.notices = Feed(ports.bus, notice, _users_of)
        _open_runs(self.doors, ports, Streams(ports, self.feed, self.guard))
        _open_records(self.doors, ports)
        open_approvals(self.doors, ports)
        open_groups(self.doors, ports)
        _open_catalogue(self.doors, ports)
        streams = NotificationStreams(ports, self.notices, self.guard)
        open_notifications(self.doors, ports, streams)
        open_documents(self.doors, ports)
        open_secrets(self.doors, ports)
        _open_published(self.doors, ports)
        health = Health(ops, lambda: describe(self.doors))
        _open_health(self.doors, health)
        webhooks = Webhooks(ports)
        self.doors.add_hot(
            "POST",
            WEBHOOK,
            webhooks.receive_webhook,
            needs=PUBLIC,
            likeness=_webhook,
            operation_id="receive_webhook",
            response_model=shapes.WebhookAccepted,
            status_code=202,
            tags=["webhooks"],
        )
        self.doors.check_sealed()
        self.asgi = Front(self.api)

    def close(self) -> None:
        """End all streams; clients go on elsewhere."""
        self.feed.close()
        self.notices.close()


def _runs_of(ring: bytes) -> list[UUID]:
    return [run_id for run_id, _ in decode_live(ring).runs]


def _users_of(ring: bytes) -> list[str]:
    return decode_noticed(ring).users


def _open_definitions(doors: Doors, ports: Ports) -> None:
    definitions = Definitions(ports)
    statuses = Statuses(ports, definitions)
    one = f"{DEFINITIONS}/{{workflow_id}}"
    reads: dict[str, Any] = {"needs": "workflows:read", "tags": ["definitions"]}
    writes: dict[str, Any] = {"needs": "workflows:write", "tags": ["definitions"]}
    view = shapes.DefinitionView
    doors.add(
        "POST",
        DEFINITIONS,
        definitions.create_definition,
        body=shapes.DefinitionBody,
        response_model=view,
        status_code=201,
        **writes,
    )
    doors.add(
        "GET",
        DEFINITIONS,
        definitions.list_definitions,
        response_model=shapes.Page[shapes.DefinitionSummary],
        **reads,
    )
    doors.add(
        "POST",
        f"{DEFINITIONS}/validate",
        definitions.validate_definition,
        body=shapes.DocumentBody,
        response_model=shapes.ValidationView,
        **reads,
    )
    dry_runs = DryRuns(ports)
    dry: dict[str, Any] = {"body": DryRunBody, "response_model": DryRunView, **reads}
    doors.add("POST", f"{DEFINITIONS}/dry-run", dry_runs.dry_run, **dry)
    doors.add("POST", f"{one}/dry-run", dry_runs.dry_run_of, **dry)
    doors.add("GET", one, definitions.get_definition, response_model=view, **reads)
    doors.add(
        "PUT",
        one,
        definitions.update_definition,
        body=shapes.DefinitionUpdate,
        response_model=view,
        **writes,
    )
    doors.add("DELETE", one, definitions.delete_definition, status_code=204, **writes)
    doors.add(
        "PATCH",
        f"{one}/status",
        statuses.set_status,
        body=shapes.StatusBody,
        response_model=view,
        **writes,
    )
    doors.add(
        "GET",
        f"{one}/versions",
        statuses.list_versions,
        response_model=shapes.Page[shapes.VersionSummary],
        **reads,
    )
    doors.add(
        "GET",
        f"{one}/versions/{{version}}",
        statuses.get_version,
        response_model=shapes.VersionView,
        **reads,
    )
    doors.add(
        "PUT",
        f"{one}/webhooks/{{node}}/secret",
        statuses.put_webhook_secret,
        body=shapes.SecretBody,
        status_code=204,
        **writes,
    )


def _open_runs(doors: Doors, ports: Ports, streams: Streams) -> None:
    runs = Runs(ports)
    one = f"{RUNS}/{{run_id}}"
    reads: dict[str, Any] = {"needs": "runs:read", "tags": ["runs"]}
    writes: dict[str, Any] = {"needs": "runs:write", "tags": ["runs"]}
    doors.add_hot(
        "POST",
        RUNS,
        RunStarts(ports).start_run,
        body=shapes.RunBody,
        response_model=shapes.RunStarted,
        status_code=202,
        responses={200: {"model": shapes.RunStarted, "description": "Started before."}},
        **writes,
    )
    doors.add("GET", RUNS, runs.list_runs, response_model=shapes.Page[shapes.RunSummary], **reads)
    doors.add("GET", one, runs.get_run, response_model=shapes.RunView, **reads)
    doors.add(
        "GET",
        "/v1/workflows/runs/{run_id}",
        runs.get_run,
        response_model=shapes.RunView,
        operation_id="get_run_by_its_other_address",
        **reads,
    )
    doors.add(
        "GET",
        f"{one}/steps",
        runs.list_steps,
        response_model=shapes.Page[shapes.StepView],
        **reads,
    )
    doors.add(
        "GET",
        f"{one}/document",
        RunDocuments(ports).get_run_document,
        response_model=RunDocument,
        **reads,
    )
    doors.add("GET", f"{one}/values/{{value_id}}", runs.get_value, **reads)
    doors.add(
        "GET",
        METRICS,
        Metrics(ports).get_run_metrics,
        response_model=shapes.MetricsView,
        **reads,
    )
    doors.add_hot(
        "GET",
        f"{one}/stream",
        streams.stream_run,
        likeness=_stream,
        operation_id="stream_run",
        response_class=PlainTextResponse,
        responses={
            200: {"content": {"text/event-stream": {}}, "description": "Until the run ends."},
            204: {"description": "The client has everything."},
        },
        **reads,
    )
    doors.add(
        "POST",
        f"{one}/cancel",
        runs.cancel_run,
        response_model=shapes.RunSummary,
        status_code=202,
        responses={200: {"model": shapes.RunSummary, "description": "Cancelled before."}},
        **writes,
    )
    doors.add(
        "POST",
        f"{one}/steps/{{node}}/resolve",
        Resolving(ports).resolve_step,
        body=shapes.ResolveBody,
        response_model=shapes.ResolvedView,
        status_code=202,
        **writes,
    )

    controls = Controls(ports)
    migrations = Migrations(ports)
    doors.add(
        "POST",
        f"{one}/migrate",
        migrations.migrate_run,
        body=shapes.MigrateBody,
        response_model=shapes.RunSummary,
        **writes,
    )
    doors.add(
        "POST",
        f"{DEFINITIONS}/{{workflow_id}}/migrate-runs",
        migrations.migrate_runs,
        body=shapes.MigrateRunsBody,
        response_model=shapes.MigrationView,
        **writes,
    )
    doors.add(
        "POST",
        f"{one}/rerun",
        Reruns(ports).rerun_run,
        body=shapes.RerunBody,
        response_model=shapes.RunStarted,
        status_code=202,
        responses={200: {"model": shapes.RunStarted, "description": "Started before."}},
        **writes,
    )
    for name, endpoint, status in (
        ("retry", controls.retry_run, 202),
        ("pause", controls.pause_run, 200),
        ("resume", controls.resume_run, 200),
    ):
        doors.add(
            "POST",
            f"{one}/{name}",
            endpoint,
            response_model=shapes.RunSummary,
            status_code=status,
            **writes,
        )


def _open_records(doors: Doors, ports: Ports) -> None:
    records = Records(ports)
    every = f"{RECORDS}/{{object_name}}"
    one = f"{every}/{{record_id:path}}"
    reads: dict[str, Any] = {"needs": "records:read", "tags": ["records"]}
    writes: dict[str, Any] = {"needs": "records:write", "tags": ["records"]}
    view = shapes.RecordView
    made = {201: {"model": view, "description": "It was not there."}}
    data = shapes.RecordData
    doors.add(
        "POST",
        every,
        records.create_record,
        body=shapes.RecordBody,
        response_model=view,
        status_code=201,
        **writes,
    )
    doors.add(
        "GET", every, records.list_records, response_model=shapes.Page[shapes.RecordView], **reads
    )
    doors.add("GET", one, records.get_record, response_model=view, **reads)
    doors.add(
        "PUT",
        one,
        records.replace_record,
        body=data,
        response_model=view,
        responses=made,
        **writes,
    )
    doors.add("PATCH", one, records.merge_record, body=data, response_model=view, **writes)
    doors.add("DELETE", one, records.delete_record, status_code=204, **writes)


def _open_catalogue(doors: Doors, ports: Ports) -> None:
    catalogue = CatalogueDoor(ports)
    reads: dict[str, Any] = {"needs": "workflows:read", "tags": ["catalogue"]}
    one = f"{CATALOGUE}/{{name:path}}"
    doors.add(
        "GET",
        CATALOGUE,
        catalogue.list_blocks,
        response_model=shapes_catalogue.CatalogueView,
        **reads,
    )
    doors.add(
        "POST",
        f"{one}/options/{{field}}",
        catalogue.list_options,
        body=shapes_catalogue.OptionsBody,
        response_model=shapes_catalogue.OptionsView,
        **reads,
    )
    doors.add("GET", one, catalogue.get_block, response_model=shapes_catalogue.BlockView, **reads)


async def _stream(run_id: UUID, last_event_id: str | None = None) -> Response:
    """Watch a run: server-sent events, from the beginning or from `Last-Event-ID` on.

    The events are `run_started`, `step_started`, `step_completed`, `step_failed`, `step_retrying`,
    `step_waiting`, `step_skipped`, `step_cancelled`, `step_jumped`, `loop_started`,
    `loop_advanced`, `iteration_failed`, `run_cancel_requested`, `run_compensating`, and at the end
    `run_completed`.
    """
    raise AssertionError("this stands in the documentation only")


def _open_published(doors: Doors, ports: Ports) -> None:
    published = Published(ports)
    reads: dict[str, Any] = {"needs": "workflows:read", "tags": ["definitions"]}
    schema: dict[str, Any] = {"responses": {200: {"content": {SCHEMA_JSON: {}}}}}
    doors.add(
        "GET",
        f"{SCHEMAS}/{{dialect}}",
        published.get_schema,
        needs=PUBLIC,
        tags=["definitions"],
        **schema,
    )
    doors.add("GET", f"{OWN_SCHEMAS}/{{dialect}}", published.get_own_schema, **reads, **schema)
    doors.add(
        "GET",
        f"{DEFINITIONS}/{{workflow_id}}/graph",
        published.get_definition_graph,
        response_class=PlainTextResponse,
        responses={
            200: {
                "content": {kind.partition(";")[0]: {} for kind, _ in FORMATS.values()},
                "description": "The picture.",
            }
        },
        **reads,
    )


def _open_health(doors: Doors, health: Health) -> None:
    for path, endpoint in (
        ("/livez", health.livez),
        ("/readyz", health.readyz),
        ("/metrics", health.metrics),
        ("/version", health.version),
        ("/openapi.json", health.openapi),
    ):
        kind = PlainTextResponse if path == "/metrics" else JSONResponse
        doors.add("GET", path, endpoint, needs=PUBLIC, tags=["health"], response_class=kind)


async def _webhook(url_token: str) -> Response:
    """Start a run with what was sent. The answer comes once the run is stored."""
    raise AssertionError("this stands in the documentation only")
