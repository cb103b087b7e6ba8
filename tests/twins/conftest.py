"""Databases for whole homeservers."""

from collections.abc import Mapping

import pytest

from storage.tables.embedded import EmbeddedPostgres
from tests.conftest import TEMPLATE, execute_on
from tests.fakes.homeservers import Homes


@pytest.fixture(scope="session")
def homes(embedded_postgres: EmbeddedPostgres) -> Homes:
    """Sites of the name that is asked for."""

    def make_database(name: str) -> Mapping[str, object]:
        database = f"twin_{name.replace('.', '_')}"
        execute_on(embedded_postgres.parameters, f"CREATE DATABASE {database} TEMPLATE {TEMPLATE}")
        return {**embedded_postgres.parameters, "dbname": database}

    return Homes(make_database)
