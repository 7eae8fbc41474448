"""Runs notebooks and sweeps; judges nothing."""
