"""A server with rooms for each test."""

import pytest

from tests.fakes.room_server import RoomServer


@pytest.fixture
def server() -> RoomServer:
    """Rooms of version 10 on a clock of its own."""
    return RoomServer()
