"""Runs: what a domain is, run folders, evaluation, data sets and figures."""
