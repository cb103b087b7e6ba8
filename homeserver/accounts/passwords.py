"""Password hashes: argon2id, made in threads of their own behind a bounded queue.

Hashes of imported accounts made with bcrypt are accepted as well. Checking the password of somebody who does not exist
costs the same as checking a real one, so that the time of an answer tells nothing.
"""

import hmac
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import bcrypt
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from config.schema import PasswordPolicy
from federation.rules.errors import MatrixError

T = TypeVar("T")

MAX_PASSWORD_BYTES = 512
"""Longer ones are refused: an argon2 call over megabytes would be a cheap way to keep the server busy."""

LARGEST_ARGON2_MEMORY = 1024 * 1024
"""KiB. An imported hash that asks for more is not computed."""


class Passwords:
    """Hashes and checks passwords away from the reactor thread.

    ``memory_kib`` and ``time_cost`` are argon2's cost; the defaults are those of RFC 9106's second choice scaled to
    19 MiB (OWASP's minimum for argon2id). At most ``max_waiting`` requests wait, more get 429.
    """

    def __init__(
        self,
        reactor: Any,
        *,
        memory_kib: int = 19 * 1024,
        time_cost: int = 2,
        threads: int = 1,
        max_waiting: int = 100,
    ) -> None:
        self._reactor = reactor
        self._hasher = PasswordHasher(time_cost=time_cost, memory_cost=memory_kib, parallelism=1)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="passwords")
        self._waiting = 0
        self._max_waiting = max_waiting
        self._nobody: str | None = None

    async def hash(self, password: str) -> str:
        """A new argon2id hash. Raises MatrixError 429 when too many wait."""
        return await self._in_thread(lambda: self._hasher.hash(_bytes(password)))

    async def verify(self, password: str, stored: str | None) -> bool:
        """Whether the password fits the stored hash; False, at the same cost, when there is none."""
        if len(_bytes(password)) > MAX_PASSWORD_BYTES:
            return False
        if stored is None:
            await self._in_thread(lambda: self._verify(password, self._nobodys_hash()))
            return False
        return await self._in_thread(lambda: self._verify(password, stored))

    def stop(self) -> None:
        """Let the threads end; work that has not begun is dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _nobodys_hash(self) -> str:
        if self._nobody is None:
            self._nobody = self._hasher.hash(secrets.token_bytes(16))
        return self._nobody

    def _verify(self, password: str, stored: str) -> bool:
        if stored.startswith("$argon2"):
            try:
                if _argon2_memory(stored) > LARGEST_ARGON2_MEMORY:
                    return False
                return self._hasher.verify(stored, _bytes(password))
            except (VerificationError, InvalidHashError, ValueError, LookupError):
                return False
        if stored.startswith("$2"):
            try:
                # bcrypt itself looks at 72 bytes; newer versions of the library refuse more instead of cutting.
                return hmac.compare_digest(
                    bcrypt.hashpw(_bytes(password)[:72], stored.encode()), stored.encode()
                )
            except ValueError:
                return False
        return False

    def _in_thread(self, work: Callable[[], T]) -> "Deferred[T]":
        if self._waiting >= self._max_waiting:
            raise MatrixError(429, "M_LIMIT_EXCEEDED", "Too many passwords are being checked", retry_after_ms=2000)
        self._waiting += 1
        done: Deferred[T] = Deferred()

        def finish(fire: Callable[[object], None], value: object) -> None:
            self._waiting -= 1
            fire(value)

        def run() -> None:
            try:
                value = work()
            except BaseException:
                self._reactor.callFromThread(finish, done.errback, Failure())
            else:
                self._reactor.callFromThread(finish, done.callback, value)

        self._pool.submit(run)
        return done


def check_new_password(password: str, policy: PasswordPolicy) -> None:
    """Refuse a password that is too short, too long or against the policy. Raises MatrixError 400 M_WEAK_PASSWORD
    (M_INVALID_PARAM when too long)."""
    if len(_bytes(password)) > MAX_PASSWORD_BYTES:
        raise MatrixError(400, "M_INVALID_PARAM", f"Passwords have at most {MAX_PASSWORD_BYTES} bytes")
    lacking = _lacking(password, policy)
    if lacking:
        raise MatrixError(400, "M_WEAK_PASSWORD", f"The password needs {lacking}")


def _lacking(password: str, policy: PasswordPolicy) -> str | None:
    minimum = policy.minimum_length if policy.enabled else 8
    if len(password) < minimum:
        return f"at least {minimum} characters"
    if not policy.enabled:
        return None
    wanted: list[tuple[bool, Callable[[str], bool], str]] = [
        (policy.require_digit, str.isdigit, "a digit"),
        (policy.require_symbol, lambda char: not char.isalnum(), "a symbol"),
        (policy.require_lowercase, str.islower, "a small letter"),
        (policy.require_uppercase, str.isupper, "a capital letter"),
    ]
    for required, fits, name in wanted:
        if required and not any(map(fits, password)):
            return name
    return None


def _argon2_memory(stored: str) -> int:
    """The m= parameter of an encoded hash, in KiB. Raises ValueError when there is none."""
    parameters = dict(pair.split("=", 1) for pair in stored.split("$")[3].split(","))
    return int(parameters["m"])


def _bytes(password: str) -> bytes:
    return password.encode("utf-8", "surrogatepass")
