"""Everything our own users see: HTTP, WebSocket, accounts, the room engine and sync."""
