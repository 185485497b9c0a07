"""Tables, figures and self-contained pages made from run folders."""

from parsecrl.platform.reports.comparison import build_comparison
from parsecrl.platform.reports.report import build_report
from parsecrl.platform.reports.table import format_table

__all__ = ["build_comparison", "build_report", "format_table"]
