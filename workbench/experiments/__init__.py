"""Experiments: each a grid of runs, their stores, one table and its figures."""
