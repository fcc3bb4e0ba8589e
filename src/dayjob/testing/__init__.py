"""Testing tasks and the code that enqueues them: `with app.testing() as t: ...`"""

from dayjob.testing.clock import VirtualClock
from dayjob.testing.kit import Testing

__all__ = ["Testing", "VirtualClock"]
