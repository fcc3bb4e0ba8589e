"""A worker process for tests: `python -m tests.worker.station '{"url": ..., ...}'`; speaks JSON lines on stdout."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from dayjob.events import encode
from dayjob.locate import ref_of
from dayjob.worker import limits
from dayjob.worker.launch import Child
from dayjob.worker.supervisor import Supervisor
from tests.worker.shop import app


def main() -> None:
    said: dict[str, Any] = json.loads(sys.argv[1])
    app.url = said["url"]
    app.bus.subscribe("*", lambda event: os.write(1, encode(event) + b"\n"))  # whole lines, from whatever thread
    if said.get("impatient"):
        for name in ("AGAIN", "FORCE", "LAST", "COURTESY"):
            setattr(limits, name, getattr(limits, name) // 10)
    options = {"queues": None, "concurrency": said.get("concurrency", 10), "grace": said.get("grace", 5.0)}
    if "processes" in said:
        ref = ref_of(app)
        assert ref is not None
        supervisor = Supervisor(
            lambda role, more: Child(role, ref, {**more, "url": app.url}),
            lambda: app.store,
            app.bus,
            processes=said["processes"],
            options={**options, **said.get("options", {})},
            grace=options["grace"],
        )
        sys.exit(supervisor.run())
    worker = app.worker(**options, **said.get("options", {}))
    if said.get("burst"):
        try:
            worker.run_until_idle()
        except KeyboardInterrupt:
            sys.exit(130)
    else:
        worker.run()


if __name__ == "__main__":
    main()
