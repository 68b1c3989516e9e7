"""Services for tasks that use none."""

from __future__ import annotations

from typing import Any

from pipeline.attempt import Services


class NoSecrets:
    """Knows none, and so none was asked for."""

    used: tuple[str, ...] = ()

    def check(self, host: str) -> None:
        """All hosts are well."""

    async def get(self, name: str) -> str:
        raise AssertionError(f"the task asked for the secret {name!r}")


def services_for_nothing() -> Services:
    def of_org(_org: str) -> Any:
        return None

    def of_run(_org: str, _run: object) -> Any:
        return None

    nothing: Any = None
    return Services(
        http=nothing,
        tables=of_org,
        functions=nothing,
        records=of_run,
        documents=of_run,
        notifications=of_run,
        secrets=lambda _org: NoSecrets(),
    )
