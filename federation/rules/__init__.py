"""The rules of Matrix as functions of values. Nothing here reads, writes, waits or asks the time."""
