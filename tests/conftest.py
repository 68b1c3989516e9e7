"""Fixtures live in plug-in modules beside this file, one per topic."""

pytest_plugins = ["tests.fix_servers", "tests.fix_store", "tests.fix_engine"]
