"""Brings our models and scenarios into other people's harnesses, lm-eval and Inspect.

Needs `pip install -e '.[evals]'`.
"""
