"""Tables, figures and self-contained pages made from run folders."""

from parsecrl.platform.reports.comparison import build_comparison
from parsecrl.platform.reports.results_table import format_table
from parsecrl.platform.reports.run_page import build_report

__all__ = ["build_comparison", "build_report", "format_table"]
