"""Every setting, once. `PERMAFLOW_…` in the environment or a `.env` file; flags win over both.

Durations are seconds. An empty URL means: start the embedded server (`permaflow up`), or do
without (`permaflow serve`, which says what it needs).
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

from permaflow.errors import SettingsError

if TYPE_CHECKING:
    from specs.limits import Limits


PREFIX = "PERMAFLOW_"
_OTHERS = re.compile(
    # Where `serve` writes its port, what the tests read, and what Kubernetes sets for services.
    r"READY_FILE|TEST_\w+|(\w+_)?SERVICE_(HOST|PORT(_\w+)?)|(\w+_)?PORT_\d+_[A-Z]+\w*"
)
_SERVICES = ("tcp://", "udp://", "sctp://")


def _sound_key(key: SecretStr) -> SecretStr:
    text = key.get_secret_value().strip()
    if not (text.isascii() and text.isprintable()):
        raise PydanticCustomError("api_key", "It holds what no API key holds")
    return SecretStr(text)


def _sound_address(address: str) -> str:
    with suppress(ValueError):
        parts = urlsplit(address)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return address
    raise PydanticCustomError("address", "It is no address such as http://127.0.0.1:3000")


ApiKey = Annotated[SecretStr, AfterValidator(_sound_key)]
"""Without the line end that files and secrets of clusters have after it."""

Address = Annotated[str, AfterValidator(_sound_address)]
LogLevel = Annotated[
    Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], BeforeValidator(str.upper)
]


class Settings(BaseSettings):
    """How this installation is set up."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=".env", extra="ignore", frozen=True
    )

    # Servers
    database_url: str = Field("", description="PostgreSQL 15 or newer: the only truth.")
    nats_url: str = Field("", description="NATS 2.12 or newer with JetStream.")
    kafka_bootstrap: str = Field("", description="Kafka brokers, `host:port,host:port`.")
    redis_url: str = Field("", description="Redis or Valkey: a cache, never a truth.")
    data_dir: Path = Field(
        Path(".permaflow"), description="Where `up` keeps the embedded servers' data."
    )

    # Doors
    http_host: str = Field("127.0.0.1", description="Address the gateway listens on.")
    http_port: int = Field(3000, ge=0, le=65535, description="Port of the gateway; 0 picks one.")
    http_connections: int = Field(
        10_000,
        ge=1,
        description="Connections that a gateway process has open at once; fewer where the system "
        "allows it fewer open files. One more takes the place of one that waits for a request.",
    )
    public_url: str = Field(
        "",
        description="Address under which people reach the gateway; links to documents, links that "
        "decide and addresses of webhooks begin with it. Without one, those to documents begin "
        "with the path, the others "
        "with what the request that asks for them was sent to (its `Host`).",
    )
    ops_host: str = Field("127.0.0.1", description="Address of the ops port of every vertex.")
    ops_port: int = Field(
        0, ge=0, le=65535, description="Port of /livez, /readyz and /metrics; 0 picks one."
    )
    api_key: ApiKey = Field(
        SecretStr(""), description="The key that the command line sends to the gateway."
    )
    api_url: Address = Field(
        "http://127.0.0.1:3000", description="The gateway the command line uses."
    )
    encryption_keys: SecretStr = Field(
        SecretStr(""),
        description="`id:base64` of 32 bytes, comma-separated; the first encrypts, all decrypt.",
    )

    # Sources of changes
    cdc_tables: str = Field(
        "",
        description="Tables of the database to watch, `schema.table`, comma-separated; `auto` "
        "watches every table that an active trigger names. `up` has `auto`.",
    )
    cdc_slot: str = Field("permaflow", description="Name of the replication slot and publication.")
    cdc_org: str = Field(
        "default",
        description="The organisation (its slug) whose triggers fire on changes of tables and "
        "topics; `*`: those of all. A built-in record belongs to its own organisation.",
    )
    kafka_topics: str = Field("", description="Debezium topics to read, comma-separated.")
    kafka_group: str = Field(
        "permaflow", description="Consumer group; its offsets are in the store."
    )

    kafka_run_topic: str = Field(
        "", description="Topic that gets an event for every run that ends; empty: none."
    )

    # What tasks may reach
    http_allow: str = Field(
        "",
        description="Private addresses that HTTP steps may reach, `host:port` or `cidr`, "
        "comma-separated. Everything private is refused otherwise.",
    )
    sources: str = Field(
        "",
        description="PostgreSQL databases for action_record, `name=url`, separated by spaces. They "
        "are the default organisation's; `org/name=url` is another's, `*/name=url` everybody's.",
    )
    smtp_url: SecretStr = Field(
        SecretStr(""),
        description="Mail server of action_email: `smtps://user:password@host`, "
        "`smtp+starttls://…`, or `smtp://host` in the clear.",
    )
    smtp_sender: str = Field(
        "", description="Address that mail comes from, `name@domain` or `Name <name@domain>`."
    )
    smtp_ca_file: Path | None = Field(
        None, description="Certificate authorities to trust for the mail server, beside the public."
    )
    integrations: str = Field(
        "", description="Provider of action_integration, `module:name`; empty: none."
    )
    functions: str = Field(
        "", description="Modules with functions for code_function, comma-separated."
    )
    task_types: str = Field("", description="Modules with further task types, comma-separated.")
    plugins: str = Field(
        "", description="Modules with integrations, `module` or `module:name`, comma-separated."
    )

    # The jail of code steps
    jail_processes: int = Field(
        4,
        ge=1,
        le=1_000,
        description="Code steps that a runner has at work at once; at most twice as many, for "
        "organisations that have none at work while others have them all.",
    )
    jail_jobs: int = Field(
        200, ge=1, le=100_000, description="Code steps that a process of the jail does in its life."
    )
    jail_memory: int = Field(
        256, ge=16, le=4_096, description="Memory in MB that a code step may ask for."
    )
    jail_require: str = Field(
        "",
        description="Layers of the jail without which no code step may run, comma-separated: "
        "`namespaces`, `files`, `user`, `landlock`, `limits`, `seccomp`; or `all`.",
    )

    # The engine
    stages: str = Field(
        "http,record,code,email,notification,report,integration",
        description="The stages a runner serves.",
    )
    concurrency: int = Field(
        256, ge=1, le=100_000, description="Steps that a runner has in work at once, per stage."
    )
    step_timeout: float = Field(
        60.0, gt=0, description="Timeout of a step whose node and task type set none."
    )
    cache_runs: int = Field(
        20_000, ge=1, description="Runs whose state an orchestrator keeps in memory."
    )
    cache_bytes: int = Field(
        256_000_000,
        ge=1_000_000,
        description="How much they may hold together, as JSON, when nothing comes for them; those "
        "that are worked on may hold twice as much. Memory takes several times that.",
    )
    database_pool: int = Field(4, ge=1, le=200, description="Connections per process.")
    reconcile_after: float = Field(
        5.0, gt=0, description="A running run that is silent for so long is looked at."
    )
    retention_days: int = Field(90, ge=1, description="How long finished runs are kept.")
    key_retention_days: int = Field(
        400, ge=1, description="How long the identity of a trigger event is remembered."
    )

    # Limits
    max_document_bytes: int = Field(1_000_000, ge=1, description="Size of a workflow document.")
    max_input_bytes: int = Field(16_000_000, ge=1, description="Size of a run's input.")
    max_output_bytes: int = Field(
        16_000_000,
        ge=1,
        le=16_000_000,
        description="Size of a step's output; task types make none that is larger.",
    )
    inline_bytes: int = Field(
        32_000, ge=1, le=500_000, description="Values above this are kept by reference."
    )
    max_nodes: int = Field(2_000, ge=1, le=2_000, description="Nodes of a workflow document.")
    max_loop_items: int = Field(100_000, ge=1, le=100_000, description="Items of a loop.")
    max_visits: int = Field(
        1_000,
        ge=1,
        le=1_000,
        description="Visits of a node by `goto`; 100 where the node does not say `max_visits`.",
    )
    max_steps: int = Field(
        1_000_000, ge=1, le=1_000_000, description="Steps of a run, further attempts included."
    )
    max_workflow_depth: int = Field(
        10,
        ge=0,
        le=10,
        description="How deep sub-workflows may stand in each other: 1 is a child without children "
        "of its own.",
    )
    max_child_runs: int = Field(
        100_000,
        ge=0,
        le=1_000_000,
        description="Runs that may be started below one by sub-workflows: its children, their "
        "children, and so on, `async` ones and further attempts included.",
    )
    max_change_depth: int = Field(
        10,
        ge=0,
        le=100,
        description="Runs that may follow each other, each started by a change that the one "
        "before made. A further change goes to the dead letters.",
    )
    dry_run_timeout: float = Field(
        20.0,
        gt=0,
        le=300,
        description="Seconds that a dry run may take, and a request that migrates the runs of a "
        "workflow. A gateway process works on one of them for each organisation, and two in all.",
    )
    webhook_rate: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="Deliveries a second that one webhook address takes in each gateway process; "
        "a burst of as many goes through at once, more get 429. 0: no limit.",
    )
    max_dispatch_bytes: int = Field(
        256_000, ge=1, le=500_000, description="A rendered config above this travels by reference."
    )

    # Telemetry
    log_level: LogLevel = Field("INFO", description="What is told at least.")
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="`auto` is `console` on a terminal, else `json`."
    )

    @cached_property
    def limits(self) -> Limits:
        from specs.limits import Limits  # a command that compiles nothing loads no dialect

        return Limits(
            self.max_nodes,
            self.max_loop_items,
            self.max_visits,
            self.max_steps,
            self.max_workflow_depth,
            self.max_child_runs,
        )

    @cached_property
    def stage_names(self) -> tuple[str, ...]:
        return split(self.stages)


def split(text: str) -> tuple[str, ...]:
    """The parts of a comma-separated setting."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


@dataclass(frozen=True, slots=True)
class UnknownVariable:
    """A variable that looks like a setting and is none; `nearest` is what may be meant, or ""."""

    name: str
    nearest: str

    def __str__(self) -> str:
        meant = f"; did you mean {self.nearest}?" if self.nearest else "."
        return f"There is no setting {self.name}{meant} See docs/reference/settings.md."


def unknown_variables() -> list[UnknownVariable]:
    """The `PERMAFLOW_…` variables of the environment and the `.env` file that nobody reads."""
    from difflib import get_close_matches

    from dotenv import dotenv_values

    known = [name.upper() for name in Settings.model_fields]
    here = {**dotenv_values(".env"), **os.environ}
    found: list[UnknownVariable] = []
    for variable, value in sorted(here.items()):
        name = variable.upper().removeprefix(PREFIX)
        if (
            name == variable.upper()
            or name in known
            or _OTHERS.fullmatch(name)
            or (value or "").startswith(_SERVICES)
        ):
            continue
        near = get_close_matches(name, known, n=1, cutoff=0.7)
        found.append(UnknownVariable(variable, f"{PREFIX}{near[0]}" if near else ""))
    return found


def load_settings(**flags: object) -> Settings:
    """The settings of this process. Raises `SettingsError` that names the variable at fault."""
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return Settings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        name = "PERMAFLOW_" + "_".join(str(part) for part in first["loc"]).upper()
        message = f"{name}: {first['msg']}. See docs/reference/settings.md."
        raise SettingsError(message) from None
