"""Promoters cut out of the genome: the benchmark's files, their extraction, and the cache."""
