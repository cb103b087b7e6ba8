"""Presence: merged from devices, ended by timers."""

from twisted.internet.task import Clock

from homeserver.ephemeral.presence import ACTIVE_FOR, IDLE_AFTER, SYNC_GRACE, Presence

A = "@a:x"


def make() -> tuple[Presence, Clock, list[str]]:
    clock, announced = Clock(), []
    clock.advance(1000)
    return Presence(clock, announced.append), clock, announced


def test_a_sync_makes_online_and_its_end_offline() -> None:
    presence, clock, announced = make()
    presence.sync_started(A, "D")
    assert presence.content(A) == {"presence": "online", "last_active_ago": 0, "currently_active": True}
    presence.sync_ended(A, "D")
    clock.advance(SYNC_GRACE - 1)
    assert presence.content(A)["presence"] == "online"
    clock.advance(2)
    assert presence.content(A)["presence"] == "offline" and announced == [A, A]


def test_syncing_on_is_no_news() -> None:
    presence, clock, announced = make()
    for _ in range(5):
        presence.sync_started(A, "D")
        clock.advance(10)
        presence.sync_ended(A, "D")
    assert announced == [A]


def test_set_presence_offline_leaves_no_trace() -> None:
    presence, _, announced = make()
    presence.sync_started(A, "D", "offline")
    presence.sync_ended(A, "D", "offline")
    assert presence.content(A) == {"presence": "offline"} and announced == []


def test_the_most_present_device_counts() -> None:
    presence, clock, _ = make()
    presence.sync_started(A, "phone", "unavailable")
    assert presence.content(A)["presence"] == "unavailable"
    presence.sync_started(A, "desk")
    assert presence.content(A)["presence"] == "online"
    presence.sync_ended(A, "desk")
    clock.advance(SYNC_GRACE + 1)
    assert presence.content(A)["presence"] == "unavailable"


def test_without_activity_online_becomes_unavailable_and_back() -> None:
    presence, clock, announced = make()
    presence.sync_started(A, "D")
    clock.advance(ACTIVE_FOR + 1)
    assert presence.content(A)["currently_active"] is False
    clock.advance(IDLE_AFTER)
    assert presence.content(A)["presence"] == "unavailable"
    presence.active(A)
    assert presence.content(A)["presence"] == "online" and presence.content(A)["currently_active"]
    assert len(announced) == 4


def test_a_status_message_is_news() -> None:
    presence, _, announced = make()
    presence.sync_started(A, "D")
    presence.set(A, "D", "online", "here")
    assert presence.content(A)["status_msg"] == "here" and len(announced) == 2
    presence.set(A, "D", "online", "here")
    assert len(announced) == 2


def test_setting_offline_wins_over_a_running_sync_of_the_device() -> None:
    presence, _, _ = make()
    presence.sync_started(A, "D")
    presence.set(A, "D", "offline", None)
    assert presence.content(A)["presence"] == "offline"


def test_a_logged_out_device_counts_no_more() -> None:
    presence, _, _ = make()
    presence.sync_started(A, "D")
    presence.device_gone(A, "D")
    assert presence.content(A)["presence"] == "offline"


def test_disabled_presence_says_offline_and_announces_nothing() -> None:
    clock, announced = Clock(), []
    presence = Presence(clock, announced.append, enabled=False)
    presence.sync_started(A, "D")
    presence.set(A, "D", "online", "x")
    presence.active(A)
    assert presence.content(A) == {"presence": "offline"} and announced == [] and clock.getDelayedCalls() == []


def test_timers_come_to_rest() -> None:
    presence, clock, _ = make()
    for number in range(20):
        presence.sync_started(f"@u{number}:x", "D")
        presence.sync_ended(f"@u{number}:x", "D")
        clock.advance(0.1)
    for _ in range(100):
        clock.advance(10)
    assert clock.getDelayedCalls() == []
