"""The same servers from containers, for PERMAFLOW_TEST_STACK=docker."""

from __future__ import annotations

import gc
import warnings
from contextlib import ExitStack

import pytest


def start_container(name: str, on_exit: ExitStack) -> str:
    """The URL of a fresh container; skips the test where no Docker daemon answers."""
    _need_docker()
    match name:
        case "postgres":
            from testcontainers.community.postgres import PostgresContainer

            postgres = PostgresContainer(
                "postgres:18-alpine", username="permaflow", dbname="permaflow", driver=None
            ).with_command("postgres -c wal_level=logical -c max_connections=200")
            return str(on_exit.enter_context(postgres).get_connection_url())
        case "nats":
            from testcontainers.community.nats import NatsContainer

            return str(
                on_exit.enter_context(NatsContainer("nats:2.14-alpine", jetstream=True)).nats_uri()
            )
        case "kafka":
            from testcontainers.community.kafka import KafkaContainer

            kafka = on_exit.enter_context(
                KafkaContainer("confluentinc/cp-kafka:7.6.0").with_kraft()
            )
            return str(kafka.get_bootstrap_server())
        case "valkey":
            from testcontainers.community.redis import RedisContainer

            valkey = on_exit.enter_context(RedisContainer("valkey/valkey:9-alpine"))
            return f"redis://{valkey.get_container_host_ip()}:{valkey.get_exposed_port(6379)}/0"
        case _:
            raise ValueError(name)


def _need_docker() -> None:
    from docker.errors import DockerException
    from testcontainers.core.docker_client import DockerClient

    with warnings.catch_warnings():
        # A client that reaches no daemon leaves its socket to the collector.
        warnings.simplefilter("ignore", ResourceWarning)
        reason = None
        try:
            DockerClient().client.ping()
        except DockerException as error:
            reason = f"PERMAFLOW_TEST_STACK=docker, but no Docker daemon answers: {error}"
        gc.collect()
    if reason is not None:
        pytest.skip(reason)
