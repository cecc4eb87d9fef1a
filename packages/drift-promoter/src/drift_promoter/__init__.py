"""Promoter DNA: data, generator and metrics."""
