"""Two people with mautrix, the library under most bridges and bots: ``python -m tests.e2e.mautrix_talk URL``.

Prints what each of them saw, as JSON.
"""

import asyncio
import json
import sys
from typing import Any

import aiohttp
from mautrix.client import Client
from mautrix.types import EventType, Membership, PaginationDirection, RoomCreatePreset

PASSWORD = "correct horse battery"


async def client_of(url: str, name: str) -> Client:
    """A new account and its client."""
    body = {"username": name, "password": PASSWORD, "auth": {"type": "m.login.dummy"}}
    async with aiohttp.ClientSession() as session, session.post(f"{url}/_matrix/client/v3/register", json=body) as answer:
        account = await answer.json()
    return Client(account["user_id"], account["device_id"], base_url=url, token=account["access_token"])


async def until(condition: Any) -> None:
    """Wait up to 20 seconds."""
    for _ in range(400):
        if condition():
            return
        await asyncio.sleep(0.05)
    raise TimeoutError


async def scene(url: str) -> dict[str, Any]:
    """Invite, join from the sync, talk, alias, page back, react, redact, kick."""
    ann, ben = await client_of(url, "ann"), await client_of(url, "ben")
    texts: list[str] = []
    types: list[str] = []
    memberships: list[Membership] = []

    async def message(event: Any) -> None:
        texts.append(event.content.body)

    async def anything(event: Any) -> None:
        types.append(f"{event.type}")

    async def member(event: Any) -> None:
        if event.state_key == ben.mxid:
            memberships.append(event.content.membership)
            if event.content.membership is Membership.INVITE:
                await ben.join_room(event.room_id)

    ben.add_event_handler(EventType.ROOM_MESSAGE, message)
    ben.add_event_handler(EventType.ALL, anything)
    ben.add_event_handler(EventType.ROOM_MEMBER, member)
    ben.start(None)
    room = await ann.create_room(
        name="Tea", alias_localpart="tea", invitees=[ben.mxid], preset=RoomCreatePreset.PRIVATE, is_direct=True
    )
    await until(lambda: Membership.JOIN in memberships)
    for number in range(5):
        await ann.send_text(room, f"hello {number}")
    await until(lambda: len(texts) == 5)
    await ann.set_displayname("Ann")
    page = await ben.get_messages(room, PaginationDirection.BACKWARD, limit=4)
    newest = next(event for event in page.events if event.type is EventType.ROOM_MESSAGE)
    await ann.react(room, newest.event_id, "👍")
    await ann.redact(room, newest.event_id, "no")
    await until(lambda: "m.room.redaction" in types)
    await ben.set_typing(room, 3000)
    await ben.send_receipt(room, newest.event_id)
    facts = {
        "texts": texts,
        "reaction": "m.reaction" in types,
        "name": await ben.get_displayname(ann.mxid),
        "alias": (await ben.resolve_room_alias("#tea:bench.localhost")).room_id == room,
        "members": len(await ann.get_joined_members(room)),
        "redacted": (await ann.get_event(room, newest.event_id)).content.serialize(),
    }
    await ann.kick_user(room, ben.mxid, "bye")
    await until(lambda: memberships[-1] is Membership.LEAVE)
    ben.stop()
    for one in (ann, ben):
        await one.api.session.close()
    return facts


if __name__ == "__main__":
    print(json.dumps(asyncio.run(scene(sys.argv[1]))))
