"""A producer that is killed: each transaction writes an effect and a job. `python -m tests.outbox.producer URL STORE FIRST`."""

from __future__ import annotations

import sys

from dayjob import App
from tests.outbox.places import connect, execute


def main(url: str, store: str, first: int, count: int) -> None:
    app = App(store)

    @app.task(name="shop.send")
    def send(order: int) -> int:
        return order

    connection = connect(url)
    for order in range(first, first + count):
        with app.outbox(connection):
            if order % 2:
                send.enqueue(order=order)
            execute(connection, f"INSERT INTO effect VALUES ('{order}')")
            if not order % 2:
                send.enqueue(order=order)
        connection.commit()
        print(order, flush=True)
    connection.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
