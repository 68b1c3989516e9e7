"""Fixtures live in plug-in modules beside this file, one per topic."""

import pytest

pytest_plugins = [
    "tests.fix_properties",
    "tests.fix_servers",
    "tests.fix_store",
    "tests.fix_engine",
    "tests.fix_gateway",
    "tests.fix_site",
    "tests.fix_up",
    "tests.fix_mail",
    "tests.fix_node",
    "tests.fix_approvals",
    "tests.fix_served",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the fault tests ten times as long")
