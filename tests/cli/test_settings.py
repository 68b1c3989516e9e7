"""Variables that look like settings and are none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from permaflow.errors import SettingsError
from pipeline.settings import UnknownVariable, load_settings, unknown_variables


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.upper().startswith("PERMAFLOW_"):
            monkeypatch.delenv(name)


def test_a_misspelt_variable_is_told_with_the_nearest_setting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PERMAFLOW_DATABSE_URL", "postgresql://localhost/x")
    monkeypatch.setenv("PERMAFLOW_WHATEVER_THIS_IS", "1")
    assert unknown_variables() == [
        UnknownVariable("PERMAFLOW_DATABSE_URL", "PERMAFLOW_DATABASE_URL"),
        UnknownVariable("PERMAFLOW_WHATEVER_THIS_IS", ""),
    ]
    first, second = map(str, unknown_variables())
    assert first.startswith("There is no setting PERMAFLOW_DATABSE_URL; did you mean PERMAFLOW_DA")
    assert second.startswith("There is no setting PERMAFLOW_WHATEVER_THIS_IS. See docs")


def test_the_env_file_is_looked_at_as_well() -> None:
    Path(".env").write_text("PERMAFLOW_HTP_PORT=3001\nPERMAFLOW_HTTP_HOST=::\nOTHER=1\n")
    assert unknown_variables() == [UnknownVariable("PERMAFLOW_HTP_PORT", "PERMAFLOW_HTTP_PORT")]


def test_settings_and_what_others_set_are_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("PERMAFLOW_HTTP_PORT", "3000"),
        ("permaflow_nats_url", "nats://localhost"),
        ("PERMAFLOW_READY_FILE", "/tmp/ready"),
        # What Kubernetes sets for a service named permaflow-gateway.
        ("PERMAFLOW_GATEWAY_SERVICE_HOST", "10.0.0.1"),
        ("PERMAFLOW_GATEWAY_SERVICE_PORT", "3000"),
        ("PERMAFLOW_GATEWAY_SERVICE_PORT_HTTP", "3000"),
        ("PERMAFLOW_GATEWAY_PORT", "tcp://10.0.0.1:3000"),
        ("PERMAFLOW_GATEWAY_PORT_3000_TCP", "tcp://10.0.0.1:3000"),
        ("PERMAFLOW_GATEWAY_PORT_3000_TCP_ADDR", "10.0.0.1"),
    ):
        monkeypatch.setenv(name, value)
    assert unknown_variables() == []


def test_a_key_out_of_a_file_has_no_line_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERMAFLOW_API_KEY", "pf_abc\n")
    assert load_settings().api_key.get_secret_value() == "pf_abc"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("API_KEY", "pf_a\nb", "It holds what no API key holds"),
        ("API_KEY", "ключ", "It holds what no API key holds"),
        ("API_URL", "http://127.0.0.1:99999", "no address such as http://127.0.0.1:3000"),
        ("API_URL", "http://[::1", "no address such as"),
        ("API_URL", "localhost:3000", "no address such as"),
        ("LOG_LEVEL", "loud", "'DEBUG', 'INFO'"),
        ("LOG_FORMAT", "xml", "'auto', 'json' or 'console'"),
    ],
)
def test_a_setting_that_cannot_be_is_told_without_its_value(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(f"PERMAFLOW_{name}", value)
    with pytest.raises(SettingsError, match=f"PERMAFLOW_{name}: ") as caught:
        load_settings()
    assert said in str(caught.value)
    assert value not in str(caught.value)


def test_the_level_of_the_log_may_be_written_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERMAFLOW_LOG_LEVEL", "debug")
    assert load_settings().log_level == "DEBUG"
