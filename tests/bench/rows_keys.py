"""Rows about end-to-end encryption: device keys and one-time keys, really signed."""

from nacl.encoding import RawEncoder
from nacl.signing import SigningKey
from signedjson.key import encode_verify_key_base64, get_verify_key
from signedjson.sign import sign_json

from tests.bench.measure import Row, Timer, measure
from tests.bench.people import Person, in_parallel, register
from tests.bench.servers import Server


def _signing_key(person: Person) -> SigningKey:
    key = SigningKey(person.device_id.encode().ljust(32, b"-")[:32], encoder=RawEncoder)
    key.alg, key.version = "ed25519", person.device_id  # type: ignore[attr-defined]
    return key


def _device_keys(person: Person) -> dict[str, object]:
    key = _signing_key(person)
    public = encode_verify_key_base64(get_verify_key(key))
    return sign_json(
        {
            "user_id": person.user_id,
            "device_id": person.device_id,
            "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
            "keys": {f"ed25519:{person.device_id}": public, f"curve25519:{person.device_id}": public},
        },
        person.user_id,
        key,
    )


def _one_time_keys(person: Person, first: int, count: int) -> dict[str, object]:
    key = _signing_key(person)
    public = encode_verify_key_base64(get_verify_key(key))
    return {
        f"signed_curve25519:AAA{n:05}": sign_json({"key": public}, person.user_id, key)
        for n in range(first, first + count)
    }


async def keys(server: Server, scale: float) -> list[Row]:
    """Upload 20 one-time keys; query 32 people's devices; claim one key of one device."""
    people = await register(server, 33)
    asker, others = people[0], people[1:]
    await in_parallel(people, lambda p: p.call("POST", "/keys/upload", {"device_keys": _device_keys(p)}))
    uploads = max(32, int(256 * scale))
    bodies = [
        (others[n % 32], {"one_time_keys": _one_time_keys(others[n % 32], 20 * (n // 32), 20)})
        for n in range(uploads)
    ]
    times = max(50, int(600 * scale))

    async def upload(timer: Timer) -> int:
        for person, body in bodies:
            await timer.time(person.call("POST", "/keys/upload", body))
        return len(bodies)

    async def query(timer: Timer) -> int:
        wanted: dict[str, list[str]] = {person.user_id: [] for person in others}
        for _ in range(5 * times):
            answer = await timer.time(asker.call("POST", "/keys/query", {"device_keys": wanted}))
            assert len(answer["device_keys"]) == 32  # type: ignore[index]
        return 5 * times

    async def claim(timer: Timer) -> int:
        for n in range(times):
            person = others[n % 32]
            body = {"one_time_keys": {person.user_id: {person.device_id: "signed_curve25519"}}}
            answer = await timer.time(asker.call("POST", "/keys/claim", body))
            assert answer["one_time_keys"][person.user_id][person.device_id]  # type: ignore[index]
        return times

    return [
        await measure(server, "keys: upload 20", upload),
        await measure(server, "keys: query 32 devices", query),
        await measure(server, "keys: claim", claim),
    ]
