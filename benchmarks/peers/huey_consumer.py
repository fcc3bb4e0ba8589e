"""huey's consumer as a process: `python -m benchmarks.peers.huey_consumer WORKERS thread|process`.

HUEY_FILE and HUEY_FSYNC name its database and whether commits are durable.
"""

from __future__ import annotations

import logging
import os
import sys

from benchmarks.peers import huey_sqlite


def main() -> None:
    """Run until SIGINT or SIGTERM."""
    logging.getLogger("huey").setLevel(logging.ERROR)
    tasks = huey_sqlite.build(os.environ["HUEY_FILE"], bool(os.environ["HUEY_FSYNC"]))
    tasks.huey.create_consumer(workers=int(sys.argv[1]), worker_type=sys.argv[2], periodic=False).run()


if __name__ == "__main__":
    main()
