"""The process that runs jobs: `Worker`, and the threads it is made of (see `worker.py` for the picture)."""

from dayjob.worker.hooks import Hooks
from dayjob.worker.worker import Worker

__all__ = ["Hooks", "Worker"]
