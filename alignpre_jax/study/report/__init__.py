"""What a study found: report.json, a page, a table for the terminal."""

from alignpre_jax.study.report.build import build_report, write_report
from alignpre_jax.study.report.page import render_page
from alignpre_jax.study.report.records import Moment, StageTime, StudyRecords
from alignpre_jax.study.report.several import compare_reports, render_comparison, write_comparison
from alignpre_jax.study.report.text import terminal_report

__all__ = [
    "Moment",
    "StageTime",
    "StudyRecords",
    "build_report",
    "compare_reports",
    "render_comparison",
    "render_page",
    "terminal_report",
    "write_comparison",
    "write_report",
]
