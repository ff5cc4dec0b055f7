"""This room says what a study found, from its records: report.json, a page, a table for the terminal, model cards."""

from alignpre_jax.report.build import build_report, write_report
from alignpre_jax.report.card import model_card
from alignpre_jax.report.collect import collect, write_metrics
from alignpre_jax.report.page import render_page
from alignpre_jax.report.several import compare_reports, render_comparison, write_comparison
from alignpre_jax.report.text import terminal_report
from alignpre_jax.report.tree_page import tree_page

__all__ = [
    "build_report",
    "collect",
    "compare_reports",
    "model_card",
    "render_comparison",
    "render_page",
    "terminal_report",
    "tree_page",
    "write_comparison",
    "write_metrics",
    "write_report",
]
