"""Whose a thing is that the settings name: by the slug of an organisation."""

from __future__ import annotations

from permaflow.errors import SettingsError
from pipeline.store import orgs
from pipeline.store.database import Database

EVERYBODY = "*"
"""Stands for all organisations where a setting wants the slug of one."""


async def named_org(database: Database, slug: str, setting: str) -> orgs.Org:
    """The organisation; the default one is made if it is not there. Raises `SettingsError`."""
    if slug == orgs.DEFAULT:
        return await database.run(orgs.ensure)
    found = await database.run(orgs.by_slug, slug)
    if found is None:
        raise SettingsError(
            f"{setting} names the organisation {slug!r}, and there is none. Make it with "
            f"`permaflow key create --org {slug}`, or correct the setting."
        )
    return found
