"""The log: every change a client can see, in one order, in one LMDB environment.

``catalog`` lists the tables, ``keys`` packs their keys, ``append`` is the write side, ``env`` opens the
LMDB environment, ``read`` walks the commit log. The other modules are typed layers over them, one for each
kind of data. Nothing here ever parses an event. The bytes on disk: ``docs/log-format.md``.
"""
