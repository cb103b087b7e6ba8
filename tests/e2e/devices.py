"""Clients of people who talk: matrix-nio over the long poll, and the same with the WebSocket below it."""

import asyncio
import collections
import json
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

from nio import AsyncClient, AsyncClientConfig, LoginResponse, MegolmEvent, RoomMessageText, RoomSendResponse, SyncResponse

from tests.bench.servers import Server
from tests.bench.websocket import Socket

PASSWORD = "correct horse battery"
TROUBLE = (OSError, EOFError, asyncio.TimeoutError, json.JSONDecodeError)


def _position(token: str) -> list[str]:
    """Epoch and position of a sync token, without what it may say of to-device messages."""
    return token.split("_")[:2]


class Device:
    """One client of one user; ``seen`` counts what reached it, by text."""

    def __init__(self, server: Server, user_id: str, store: Path) -> None:
        config = AsyncClientConfig(
            encryption_enabled=True, store_sync_tokens=True, max_timeouts=1, request_timeout=20, max_limit_exceeded=0
        )
        store.mkdir(parents=True, exist_ok=True)
        url = f"http://{server.host}:{server.port}"
        self.client = AsyncClient(url, user_id, store_path=str(store), config=config)
        self.seen: collections.Counter[str] = collections.Counter()
        self.event_ids: collections.Counter[str] = collections.Counter()
        self.undecrypted = 0
        self.gaps: list[str] = []
        self.filter: dict[str, Any] | None = {"room": {"timeline": {"limit": 1000}}}
        self.up_to_date = asyncio.Event()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None
        self.client.add_event_callback(self._message, RoomMessageText)
        self.client.add_event_callback(self._not_decrypted, MegolmEvent)

    async def _message(self, room: Any, event: RoomMessageText) -> None:
        self.seen[event.body] += 1
        self.event_ids[event.event_id] += 1

    async def _not_decrypted(self, room: Any, event: MegolmEvent) -> None:
        self.undecrypted += 1

    async def log_in(self) -> None:
        """Log in as a new device, upload its keys and catch up."""
        answer = await self.client.login(PASSWORD, device_name="test")
        assert isinstance(answer, LoginResponse), answer
        await self.catch_up()

    async def catch_up(self) -> None:
        """One sync that does not wait, then whatever the encryption machine asks for."""
        answer = await self.client.sync(timeout=0, full_state=self.client.next_batch is None)
        assert isinstance(answer, SyncResponse), answer
        await self._housekeeping()

    async def _housekeeping(self) -> None:
        client = self.client
        if client.should_upload_keys:
            await client.keys_upload()
        if client.should_query_keys:
            await client.keys_query()
        if client.should_claim_keys:
            await client.keys_claim(client.get_users_for_key_claiming())
        await client.send_to_device_messages()

    def listen(self) -> None:
        """Long-poll until told to stop; a lost server is tried again with the same token."""
        self._task = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        self.up_to_date.set()
        while not self._stopping:  # a cancellation alone can get lost in wait_for
            try:
                answer = await asyncio.wait_for(self.client.sync(timeout=5000, sync_filter=self.filter), 25)
                if isinstance(answer, SyncResponse):
                    self._note_gaps(answer)
                    await self._housekeeping()
                else:
                    await asyncio.sleep(0.2)
            except TROUBLE:
                await asyncio.sleep(0.1)

    def _note_gaps(self, answer: SyncResponse) -> None:
        """nio doesn't fetch what a limited timeline leaves out: the verdict says if there was one."""
        self.gaps += [room_id for room_id, room in answer.rooms.join.items() if room.timeline.limited]

    async def stop(self) -> None:
        """Stop long-polling."""
        self._stopping = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def share_keys(self, room_id: str) -> None:
        """A fresh group session, given to everybody while the server is up.

        nio takes a session for shared even when handing its keys out failed (on any server), so that must not
        happen during a kill; and it makes a new one after 100 messages.
        """
        await self.client.joined_members(room_id)
        await self._housekeeping()
        self.client.invalidate_outbound_session(room_id)
        await self.client.share_group_session(room_id, ignore_unverified_devices=True)

    async def send(self, room_id: str, text: str, transaction: str) -> str | None:
        """Send with this transaction id until the server acknowledges; gives the event id."""
        content = {"msgtype": "m.text", "body": text}
        for _ in range(200):
            try:
                event_id = await asyncio.wait_for(self._put(room_id, content, transaction), 25)
                if event_id is not None:
                    return event_id
            except TROUBLE:
                pass
            await asyncio.sleep(0.1)
        return None

    async def _put(self, room_id: str, content: dict[str, Any], transaction: str) -> str | None:
        """Send once; None when the server refuses."""
        answer = await self.client.room_send(
            room_id, "m.room.message", content, transaction, ignore_unverified_devices=True
        )
        return str(answer.event_id) if isinstance(answer, RoomSendResponse) else None


class SocketDevice(Device):
    """The same client on the WebSocket, for what it reads and for what it says.

    One that remembers says in each hello how far it came. One that does not is a client that keeps nothing before
    it acknowledges: it leaves the place to the cursor that the server keeps, and forgets what came after that.
    """

    def __init__(self, server: Server, user_id: str, store: Path, remembers: bool) -> None:
        super().__init__(server, user_id, store)
        self.resumed = 0
        self.forgotten = 0
        self.misplaced: list[str] = []
        self._server, self._remembers = server, remembers
        self._journal: list[tuple[str, list[RoomMessageText]]] = []
        self._body: list[RoomMessageText] = []
        self._socket: Socket | None = None
        self._ids = count(1)
        self._requests: dict[int, asyncio.Future[dict[str, Any]]] = {}

    async def _message(self, room: Any, event: RoomMessageText) -> None:
        await super()._message(room, event)
        self._body.append(event)

    async def _listen(self) -> None:
        while not self._stopping:
            try:
                await self._connection()
            except TROUBLE:
                await asyncio.sleep(0.1)

    async def _connection(self) -> None:
        since = self.client.next_batch if self._remembers else None
        host, port, token = self._server.host, self._server.port, self.client.access_token
        socket = await asyncio.wait_for(Socket.open(host, port, token, since, filter=self.filter), 20)
        try:
            self._welcome(socket.welcome["since"], since)
            self._socket = socket
            while True:
                frame = json.loads(await socket.receive())
                if frame["type"] == "sync":
                    await self._take(frame["body"])
                    socket.send({"type": "ack", "next_batch": frame["body"]["next_batch"]})
                elif frame["type"] == "response":
                    self._requests.pop(frame["id"]).set_result(frame)
        finally:
            self._socket = None
            socket.close()
            for waiting in self._requests.values():
                waiting.set_exception(ConnectionError("the connection ended"))
            self._requests.clear()

    def _welcome(self, place: str | None, asked: str | None) -> None:
        if asked is not None and place != asked:
            self.misplaced.append(f"asked for {asked}, welcomed at {place}")
        if place is not None:
            self.up_to_date.set()
        if self._journal:
            self.resumed += place is not None
        while self._journal and _position(self._journal[-1][0]) != _position(place or ""):
            _, events = self._journal.pop()
            self.forgotten += len(events)
            self.seen.subtract(event.body for event in events)
            self.event_ids.subtract(event.event_id for event in events)
        self.client.next_batch = place or ""

    async def _take(self, body: dict[str, Any]) -> None:
        answer = SyncResponse.from_dict(body)
        assert isinstance(answer, SyncResponse), answer
        self._body = []
        await self.client.receive_response(answer)
        self._journal.append((answer.next_batch, self._body))
        self._note_gaps(answer)
        await self._housekeeping()
        self.up_to_date.set()

    async def _request(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if self._socket is None:
            raise ConnectionError("not connected")
        number = next(self._ids)
        self._requests[number] = answer = asyncio.get_running_loop().create_future()
        self._socket.send({"type": "request", "id": number, "method": method, "path": path, "body": body})
        return await answer

    async def _put(self, room_id: str, content: dict[str, Any], transaction: str) -> str | None:
        kind = "m.room.message"
        if self.client.rooms[room_id].encrypted:
            kind, content = self.client.encrypt(room_id, kind, content)
        path = f"/_matrix/client/v3/rooms/{quote(room_id)}/send/{kind}/{quote(transaction)}"
        answer = await self._request("PUT", path, content)
        return str(answer["body"]["event_id"]) if answer["status"] == 200 else None
