"""The provider of integrations that the settings name."""

from __future__ import annotations

import pytest

from permaflow.errors import SettingsError
from pipeline import builtins
from pipeline.settings import load_settings


def provider(org: str, http: object) -> object:
    return org


no_provider = 5


def test_the_settings_name_a_provider_or_none() -> None:
    assert builtins.integrations(load_settings(integrations="")) is None
    named = builtins.integrations(load_settings(integrations=f"{__name__}:provider"))
    assert named is provider


@pytest.mark.parametrize(
    "setting", [f"{__name__}:nothing", f"{__name__}:no_provider", "no.such.module:x", __name__]
)
def test_one_that_is_not_there_is_told_by_the_name_of_the_setting(setting: str) -> None:
    with pytest.raises(SettingsError, match="PERMAFLOW_INTEGRATIONS"):
        builtins.integrations(load_settings(integrations=setting))
