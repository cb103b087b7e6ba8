"""Asking several servers at once, but not all of them."""

from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, DeferredSemaphore, gatherResults
from twisted.internet.interfaces import IReactorTime

AT_ONCE = 8
"""Pieces of work that are under way together."""

T = TypeVar("T")
R = TypeVar("R")


async def some_at_once(items: Iterable[T], work: Callable[[T], Awaitable[R]]) -> list[R]:
    """Do `work` with each item, a few at a time; the results in the order of the items.

    The first exception is raised once it comes up; what is under way then goes on.
    """
    slots = DeferredSemaphore(AT_ONCE)

    async def one(item: T) -> R:
        await slots.acquire()
        try:
            return await work(item)
        finally:
            slots.release()

    results: list[R] = await gatherResults([Deferred.fromCoroutine(one(item)) for item in items], consumeErrors=True)
    return results


async def for_a_while(work: Coroutine[Any, Any, R], seconds: float, clock: IReactorTime) -> R | None:
    """What `work` comes to, None if that takes longer than some seconds: then it goes on by itself.

    What it raises meanwhile is raised, what it raises later nobody hears.
    """
    over: Deferred[R | None] = Deferred()
    timer = clock.callLater(seconds, over.callback, None)

    def done(result: Any) -> None:
        if timer.active():
            timer.cancel()
            over.callback(result)  # a Failure takes the errbacks

    Deferred.fromCoroutine(work).addBoth(done)
    return await over
