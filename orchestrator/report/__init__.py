"""Figures and one page from a score table; see :mod:`orchestrator.report.views` for what they are told."""

from orchestrator.report.figures import draw_figures
from orchestrator.report.page import write_page
from orchestrator.report.views import Figure, Gap, ReportContext, Sample, StudyView

__all__ = ["Figure", "Gap", "ReportContext", "Sample", "StudyView", "draw_figures", "write_page"]
