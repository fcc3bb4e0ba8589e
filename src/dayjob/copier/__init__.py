"""From one store to another: `dayjob copy`."""

from dayjob.copier.copier import Copier
from dayjob.copier.report import Count, Problem, Report

__all__ = ["Copier", "Count", "Problem", "Report"]
