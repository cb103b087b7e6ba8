"""Who holds which access token: the authenticator of every request, answered from memory when it can be.

A token that was used lately is one dictionary look-up. The dictionary is keyed by the token itself; PostgreSQL holds
only its hash. Whoever deletes tokens in PostgreSQL says so with `revoked`, which forgets them here and tells the
observers, so that waiting polls and open sockets end. When and from where devices were used is collected here and
written in batches.
"""

from collections.abc import Awaitable, Callable, Iterable

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from federation.rules.errors import MatrixError
from homeserver.accounts.tokens import MAX_TOKEN_LENGTH, token_hash
from homeserver.web.call import Requester
from storage.tables import access_tokens, devices, refresh_tokens
from storage.tables.access_tokens import RevokedToken, TokenRow
from storage.tables.database import Cursor, Database
from storage.tables.devices import Seen

SEEN_EVERY_MS = 60_000
"""A device in constant use is noted once in this time."""

log = Logger()

RevocationObserver = Callable[[str, str | None, int], None]


class CachedSession:
    """What is remembered of a token that was used lately."""

    __slots__ = ("address", "expires_ts", "requester", "seen_ts", "token_id")

    def __init__(self, requester: Requester, token_id: int, expires_ts: int | None) -> None:
        self.requester = requester
        self.token_id = token_id
        self.expires_ts = expires_ts
        self.seen_ts = 0
        self.address = ""


class Authenticator:
    """`authenticate` for the router, and the place where the end of a session is announced.

    ``now_ms`` is wall time. ``on_revoked`` lists the observers: ``(user_id, device_id, token_id)``, called on the
    reactor for each token that stops working, whether it was in the cache or not. Those of ``on_locked`` are called with
    the ID of a user whose tokens stay good but let nobody in for now.
    """

    def __init__(
        self,
        database: Database,
        reactor: IReactorTime,
        now_ms: Callable[[], int],
        *,
        capacity: int = 100_000,
        flush_seconds: float = 2.0,
    ) -> None:
        self.on_revoked: list[RevocationObserver] = []
        self.on_locked: list[Callable[[str], None]] = []
        self._database = database
        self._reactor = reactor
        self._now_ms = now_ms
        self._capacity = capacity
        self._sessions: dict[str, CachedSession] = {}
        self._by_user: dict[str, set[str]] = {}
        self._seen: dict[tuple[str, str], Seen] = {}
        self._revocations = 0
        self._flush_loop = LoopingCall(self.flush)
        self._flush_loop.clock = reactor
        self._flush_seconds = flush_seconds

    def start(self) -> None:
        """Begin to write down, every few seconds, which devices were used."""
        self._flush_loop.start(self._flush_seconds, now=False)

    async def stop(self) -> None:
        """Write down what is left."""
        if self._flush_loop.running:
            self._flush_loop.stop()
        await self.flush()

    def authenticate(self, token: str, address: str, user_agent: str) -> Requester | Awaitable[Requester]:
        """Whose token it is, at once when it was used lately.

        Raises MatrixError 401 M_UNKNOWN_TOKEN (with ``soft_logout`` when it has expired) or M_USER_LOCKED.
        """
        session = self._sessions.get(token)
        if session is None:
            return self._load(token, address, user_agent)
        now = self._now_ms()
        if session.expires_ts is not None and session.expires_ts <= now:
            self._evict(token)
            raise _expired()
        if now - session.seen_ts >= SEEN_EVERY_MS or session.address != address:
            self._note_use(token, session, now, address, user_agent)
        return session.requester

    def authenticate_even_locked(self, token: str, address: str, user_agent: str) -> Requester | Awaitable[Requester]:
        """Like `authenticate`, for what the owner of a locked account may still do: log out ("Account locking")."""
        if token in self._sessions:
            return self.authenticate(token, address, user_agent)
        return self._load_even_locked(token)

    def expires_ts(self, token: str) -> int | None:
        """When a token of the cache expires (ms), for connections that outlive a request."""
        session = self._sessions.get(token)
        return session.expires_ts if session else None

    def revoked(self, tokens: Iterable[RevokedToken]) -> None:
        """These tokens are gone from PostgreSQL: let nobody in with them and tell the observers."""
        tokens = list(tokens)
        if not tokens:
            return
        self._revocations += 1
        ids = {token.token_id for token in tokens}
        for user_id in {token.user_id for token in tokens}:
            for cached in list(self._by_user.get(user_id, ())):
                if self._sessions[cached].token_id in ids:
                    self._evict(cached)
        for token in tokens:
            _tell(self.on_revoked, token.user_id, token.device_id, token.token_id)

    def locked(self, user_id: str) -> None:
        """Nobody gets in with the tokens of this account until it is unlocked: its open connections end."""
        self.forget_user(user_id)
        _tell(self.on_locked, user_id)

    def forget_user(self, user_id: str) -> None:
        """Look the account up again at its next request: its rights have changed."""
        self._revocations += 1
        for cached in list(self._by_user.get(user_id, ())):
            self._evict(cached)

    async def flush(self) -> None:
        """Write to PostgreSQL when and from where devices were used."""
        if not self._seen:
            return
        seen, self._seen = self._seen, {}
        rows = sorted(seen.values())
        try:
            await self._database.run(lambda cur: devices.record_seen(cur, rows))
        except Exception as error:
            self._seen = seen | self._seen
            if len(self._seen) > self._capacity:
                self._seen.clear()
            log.warn("Cannot write down when devices were last used: {error}", error=error)

    async def _load(self, token: str, address: str, user_agent: str) -> Requester:
        row = await self._read(token)
        if row.locked:
            raise MatrixError(401, "M_USER_LOCKED", "This account has been locked", soft_logout=True)
        session = _session_of(row)
        if token not in self._sessions:
            self._remember(token, session)
        self._note_use(token, session, self._now_ms(), address, user_agent)
        return session.requester

    async def _load_even_locked(self, token: str) -> Requester:
        return _session_of(await self._read(token)).requester

    async def _read(self, token: str) -> TokenRow:
        """The token as PostgreSQL has it. Raises MatrixError 401 M_UNKNOWN_TOKEN."""
        if len(token) > MAX_TOKEN_LENGTH:
            raise _unknown()
        hashed = token_hash(token)
        while True:
            before = self._revocations
            row, replaced = await self._database.run(lambda cur: _look_up(cur, hashed))
            if replaced:
                self.revoked(replaced)
            elif before == self._revocations:
                break
            # A session ended while we were reading: perhaps this one. Read again.
        if row is None or row.deactivated:
            raise _unknown()
        if row.expires_ts is not None and row.expires_ts <= self._now_ms():
            raise _expired()
        return row

    def _remember(self, token: str, session: CachedSession) -> None:
        while len(self._sessions) >= self._capacity:
            self._evict(next(iter(self._sessions)))
        self._sessions[token] = session
        self._by_user.setdefault(session.requester.user_id, set()).add(token)

    def _evict(self, token: str) -> None:
        session = self._sessions.pop(token)
        user_id = session.requester.user_id
        tokens = self._by_user[user_id]
        tokens.discard(token)
        if not tokens:
            del self._by_user[user_id]

    def _note_use(self, token: str, session: CachedSession, now: int, address: str, user_agent: str) -> None:
        session.seen_ts = now
        session.address = address
        if token in self._sessions:  # to the end of the dictionary: the sessions at its start are the idle ones
            self._sessions[token] = self._sessions.pop(token)
        requester = session.requester
        if requester.device_id is not None:
            key = (requester.user_id, requester.device_id)
            self._seen[key] = Seen(*key, now, address[:100], user_agent.replace("\0", "")[:300])


def _session_of(row: TokenRow) -> CachedSession:
    requester = Requester(
        user_id=row.user_id,
        device_id=row.device_id,
        is_guest=row.is_guest,
        token_id=row.token_id,
        is_admin=row.is_admin,
    )
    return CachedSession(requester, row.token_id, row.expires_ts)


def _tell(observers: Iterable[Callable[..., None]], *what: object) -> None:
    for observer in list(observers):
        try:
            observer(*what)
        except Exception:
            log.failure("An observer of sessions failed")


def _look_up(cur: Cursor, hashed: bytes) -> tuple[TokenRow | None, list[RevokedToken]]:
    """The token, and the tokens which its first use ends: those that it was refreshed from."""
    row = access_tokens.token_by_hash(cur, hashed)
    if row is None or row.refresh_id is None:
        return row, []
    return row, end_predecessor(cur, row.refresh_id)


def end_predecessor(cur: Cursor, refresh_id: int) -> list[RevokedToken]:
    """A refresh token, or the access token with it, has come into use: end what it replaces."""
    predecessor = refresh_tokens.replaced_by(cur, refresh_id)
    if predecessor is None:
        return []
    revoked = access_tokens.revoke_refreshed(cur, predecessor)
    refresh_tokens.forget_predecessor(cur, refresh_id)
    refresh_tokens.delete_refresh_tokens(cur, [predecessor])
    return revoked


def _unknown() -> MatrixError:
    return MatrixError(401, "M_UNKNOWN_TOKEN", "Unknown access token", soft_logout=False)


def _expired() -> MatrixError:
    return MatrixError(401, "M_UNKNOWN_TOKEN", "The access token has expired", soft_logout=True)


