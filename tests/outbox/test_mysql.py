"""The application on MySQL or MariaDB, through SQLAlchemy. Needs a server: DAYJOB_TEST_MYSQL=mysql+pymysql://root@127.0.0.1/shop."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import sqlalchemy
from sqlalchemy.orm import Session

from dayjob import App
from dayjob.errors import ConfigError
from dayjob.outbox.desk import Desk
from dayjob.outbox.relay import OutboxRelay
from dayjob.outbox.source import Source

URL = os.environ.get("DAYJOB_TEST_MYSQL", "")
needs_server = pytest.mark.skipif(not URL, reason="DAYJOB_TEST_MYSQL names no server")


@pytest.fixture
def engine() -> Iterator[sqlalchemy.Engine]:
    made = sqlalchemy.create_engine(URL)
    with made.begin() as connection:
        for table in ("dayjob_outbox", "dayjob_outbox_relay", "effect"):
            connection.execute(sqlalchemy.text(f"DROP TABLE IF EXISTS {table}"))
        connection.execute(sqlalchemy.text("CREATE TABLE effect (note text)"))
    yield made
    made.dispose()


@needs_server
def test_jobs_go_through_an_outbox_there(engine: sqlalchemy.Engine, tmp_path: Path) -> None:
    app = App(f"sqlite:///{tmp_path / 'jobs.db'}")

    @app.task(name="shop.send")
    def send(order: int, note: str) -> None: ...

    desk = Desk(Source(URL), "dayjob_outbox", "relay")
    with Session(engine) as session, pytest.raises(ConfigError, match="no table dayjob_outbox"):
        send.using(outbox=session).enqueue(order=0, note="")
    desk.make()
    desk.make()
    chosen = uuid4()
    with Session(engine) as session, app.outbox(session):
        session.execute(sqlalchemy.text("INSERT INTO effect VALUES ('paid')"))
        send.using(id=chosen).enqueue(order=0, note="ä🙂")
        again = send.using(id=chosen).enqueue(order=0, note="")
        app.enqueue_many([send.job(order=order, note="%s :p1") for order in range(1, 600)])
        session.commit()
        send.enqueue(order=-1, note="")
        session.rollback()
    bad = str(chosen)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text(f"UPDATE dayjob_outbox SET body = '{{' WHERE job_id = '{bad}'"))

    relay = OutboxRelay(desk, app.store, app.bus, batch=100)
    relay.tick()
    relay.tick()

    assert ("existing", 599, [bad]) == (again.outcome, app.jobs.count(), [one.id for one in desk.failed()])
    assert 0.0 <= desk.failed()[0].age < 60.0
    assert (desk.standing().waiting, desk.standing().failed) == (0, 1)
    assert (desk.discard([bad]), desk.standing().failed) == (1, 0)
    second = OutboxRelay(Desk(Source(URL), "dayjob_outbox", "second"), app.store, app.bus)
    second.tick()
    assert not second.leads
    relay.close()
    second.tick()
    assert second.leads
    second.close()
    app.close()


def test_a_missing_driver_is_named_with_the_remedy() -> None:
    with pytest.raises(ConfigError, match="must be installed"), Source("mysql+nosuch://host/db").transaction():
        pass
