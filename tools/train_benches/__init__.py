"""These are the sides of tools/bench_train.py; each is a script that runs in its own environment and prints figures."""
