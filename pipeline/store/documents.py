"""Files that steps wrote, such as reports, kept as long as finished runs are."""

from __future__ import annotations

from uuid import UUID, uuid5

from permaflow.errors import NotFoundError
from permaflow.ports import Document, StoredDocument
from pipeline.store.database import Connection, Database
from pipeline.store.queries import query

_PUT = query("documents.put")
_GET = query("documents.get")

PATH = "/documents/v1"
_IDS = UUID("d0ad5b47-2a5c-5d62-9a0e-4b7d4bbd6d53")


async def put(
    connection: Connection, org: UUID, document_id: UUID, document: Document, run_id: UUID | None
) -> None:
    """Keep a document; one that has this id already stays."""
    values = {
        "org": org,
        "id": document_id,
        "name": document.name,
        "content_type": document.content_type,
        "body": document.body,
        "run_id": run_id,
    }
    await connection.execute(_PUT, values)


async def get(connection: Connection, org: UUID, document_id: UUID) -> Document:
    """A document, whole. Raises `NotFoundError`."""
    cursor = await connection.execute(_GET, {"org": org, "id": document_id}, binary=True)
    row = await cursor.fetchone()
    if row is None:
        raise NotFoundError(f"There is no document {document_id}.")
    name, content_type, body = row
    return Document(name, content_type, bytes(body))


class DocumentStore:
    """What a task of a run sees of them (`permaflow.ports.Documents`).

    Links begin with `address`, under which the gateway is reached.
    """

    __slots__ = ("_address", "_database", "_org", "_run_id")

    def __init__(self, database: Database, org: UUID, run_id: UUID, address: str) -> None:
        self._database = database
        self._org = org
        self._run_id = run_id
        self._address = address

    async def put(self, document: Document, *, key: str) -> StoredDocument:
        document_id = uuid5(_IDS, f"{self._org}:{key}")
        await self._database.run_as(self._org, put, self._org, document_id, document, self._run_id)
        return StoredDocument(str(document_id), f"{self._address}{PATH}/{document_id}")

    async def get(self, document_id: str) -> Document:
        try:
            wanted = UUID(document_id)
        except ValueError:
            raise NotFoundError(f"{document_id[:50]!r} is no id of a document.") from None
        return await self._database.run_as(self._org, get, self._org, wanted)
