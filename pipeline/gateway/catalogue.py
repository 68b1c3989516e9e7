"""/workflows/v1/catalogue: everything that a workflow may be made of."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated

from fastapi import Path
from starlette.requests import Request
from starlette.responses import Response

from permaflow.errors import ConnectorError, ContractError, NotFoundError, PermaflowError
from permaflow.forms import DataSources, Hint, Option, hinted, options_of
from permaflow.integration import Integration
from pipeline.catalogue import Block, Catalogue
from pipeline.gateway.answers import answer
from pipeline.gateway.auth import ADMIN, caller_of
from pipeline.gateway.bodies import read
from pipeline.gateway.datasources import OrgDataSources
from pipeline.gateway.foreign import Foreign, FromAfar
from pipeline.gateway.ports import Ports
from pipeline.gateway.problems import Refusal
from pipeline.gateway.shapes_catalogue import (
    BlockSummary,
    BlockView,
    CatalogueView,
    CredentialView,
    IntegrationView,
    OptionsBody,
    OptionsView,
    OptionView,
    OutputView,
)

ROOT = "/workflows/v1/catalogue"
READS_RECORDS = "records:read"
LONGEST = 10.0
"""Seconds that options may take to be made."""

Name = Annotated[str, Path(pattern=r"^[A-Za-z][A-Za-z0-9_.\-]{0,99}(/[A-Za-z0-9_.\-]{1,99})?$")]


class CatalogueDoor:
    """The handlers."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._catalogue: Catalogue = ports.catalogue
        self._foreign = Foreign()

    async def list_blocks(self, request: Request) -> Response:
        """Every block by name, without its schemas, and the integrations. Broken plug-ins are left
        out; `permaflow doctor` names them."""
        blocks = await asyncio.to_thread(lambda: list(self._catalogue.blocks()))
        integrations = [_integration(each) for each in self._catalogue.integrations()]
        summaries = [BlockSummary.model_validate(_summary(each)) for each in blocks]
        return answer(CatalogueView(blocks=summaries, integrations=integrations))

    async def get_block(self, request: Request, name: Name) -> Response:
        """One block with the schemas of its config and its result, and its config as the fields of
        a form."""
        return answer(_view(await self._find(name)))

    async def list_options(self, request: Request, name: Name, field: str) -> Response:
        """What may be chosen in a field, given the values of the other fields. There is nothing
        while a field that the options depend on is unset. What the data sources have is for who may
        read records, too."""
        body = await read(request, OptionsBody, self._ports.settings.max_document_bytes)
        await self._find(name)
        model = self._catalogue.config_model(name)
        hint = next((hint for key, _, hint in hinted(model) if key == field), None)
        if hint is None:
            raise NotFoundError(f"`{name}` has no field {field!r} with options.")
        sources = await self._sources(request)
        try:
            found = await self._options(hint, model, field, body, sources)
        except Refusal:
            raise
        except ConnectorError:
            raise _failed(name, field, "a data source cannot be reached") from None
        except PermaflowError:
            raise
        except TimeoutError:
            raise _failed(name, field, "they took too long") from None
        except Exception as error:  # whatever a plug-in raises while it makes them
            raise _failed(name, field, type(error).__name__) from error
        return answer(OptionsView(options=[_option(each) for each in found]))

    async def _options(
        self, hint: Hint, model: object, field: str, body: OptionsBody, sources: DataSources
    ) -> tuple[Option, ...]:
        """What a plug-in makes in its own thread, and all else here."""
        if hint.get_options is None:
            async with asyncio.timeout(LONGEST):
                return await options_of(model, field, body.config, sources)
        afar = FromAfar(sources, asyncio.get_running_loop())
        return await self._foreign.run(lambda: options_of(model, field, body.config, afar), LONGEST)

    async def _sources(self, request: Request) -> DataSources:
        caller = caller_of(request)
        if not caller.scopes & {READS_RECORDS, ADMIN}:
            return _Closed()
        tables = await self._ports.tables.of(caller.org)
        return OrgDataSources(caller.org, self._ports.pool, tables)

    async def _find(self, name: str) -> Block:
        try:
            return await asyncio.to_thread(self._catalogue.get, name)
        except ContractError as error:
            raise Refusal(409, "broken_plugin", str(error)) from error


class _Closed:
    """The data sources for somebody who may not read records."""

    async def datasources(self) -> Sequence[Option]:
        raise _forbidden()

    async def attributes(self, datasource: str) -> Sequence[Option]:
        raise _forbidden()


def _forbidden() -> Refusal:
    detail = f"To see which data sources there are needs the scope `{READS_RECORDS}`."
    return Refusal(403, "missing_scope", detail)


def _failed(name: str, field: str, reason: str) -> Refusal:
    detail = f"The options of `{field}` of `{name}` could not be made: {reason}."
    return Refusal(502, "options_failed", detail)


def _summary(block: Block) -> dict[str, object]:
    return {
        "name": block.name,
        "kind": block.kind,
        "label": block.label,
        "category": block.category,
        "description": block.description,
        "icon": block.icon,
        "stage": block.stage,
        "remote": block.remote,
        "links": {"self": f"{ROOT}/{block.name}"},
    }


def _view(block: Block) -> BlockView:
    return BlockView(
        **_summary(block),  # type: ignore[arg-type]
        timeout_seconds=block.timeout,
        ports=list(block.ports),
        open_ports=block.open_ports,
        outputs=[OutputView(field=o.field, description=o.description) for o in block.outputs],
        fields=block.fields,
        config=dict(block.config),
        result=dict(block.result),
    )


def _integration(found: Integration) -> IntegrationView:
    return IntegrationView(
        type=found.type,
        label=found.label,
        description=found.description,
        icon=found.icon,
        form_fields=[
            CredentialView(
                id=each.id,
                label=each.label,
                type=each.type,
                placeholder=each.placeholder,
                config_key=each.key,
            )
            for each in found.form_fields
        ],
        actions=dict(found.labels),
    )


def _option(option: Option) -> OptionView:
    label = option.label or str(option.value)
    return OptionView(value=option.value, label=label, primary_key=option.primary_key)
