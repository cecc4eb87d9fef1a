"""The benchmarks that benchmark.py runs, one module each."""
