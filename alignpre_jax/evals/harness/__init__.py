"""Other people's harnesses: our models and scenarios in lm-eval and Inspect. Needs `pip install -e '.[evals]'`."""
