"""Bytes, keys, positions and rows. Never parses an event."""
