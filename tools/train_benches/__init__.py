"""The sides of tools/bench_train.py: each a script that runs in its own environment and prints its figures."""
