"""Frozen settings, read once at start. Imports nothing of ours."""
