"""State resolution once more, slow and close to the words of the specification: whole chains, whole sets."""

from hashlib import sha1

from naive_auth import allowed, user_level

from federation.rules.auth import auth_types_for


def resolve(version, states, fetch):
    v = int(version.id)
    return resolve_v1(states, fetch) if v == 1 else resolve_v2(states, fetch, v)


def wanted(event):
    return auth_types_for(event.type, event.state_key, event.sender, event.content, event.version)


def resolve_v1(states, fetch):
    keys = {key for state in states for key in state}
    options = {key: {state[key] for state in states if key in state} for key in keys}
    result = {key: next(iter(ids)) for key, ids in options.items() if len(ids) == 1}
    conflicts = {key: [fetch(id_) for id_ in ids] for key, ids in options.items() if len(ids) > 1}

    def passes(event):
        return allowed(event, {key: fetch(result[key]) for key in wanted(event) if key in result})

    def sha(event):
        return sha1(event.event_id.encode()).hexdigest()

    for type_ in ("m.room.power_levels", "m.room.join_rules", "m.room.member"):
        stage = {}
        for key in sorted(key for key in conflicts if key[0] == type_):
            events = sorted(sorted(conflicts.pop(key), key=sha, reverse=True), key=lambda event: event.depth)
            before = dict(result)
            result[key] = events.pop(0).event_id
            while events and passes(events[0]):
                result[key] = events.pop(0).event_id
            # Members that are in conflict do not see each other.
            stage[key] = result[key]
            result = before
        result.update(stage)
    chosen = {}
    for key, events in conflicts.items():
        events = sorted(events, key=lambda event: (-event.depth, sha(event)))
        chosen[key] = next((event for event in events if passes(event)), events[-1]).event_id
    return {**result, **chosen}


def chain(event_id, fetch, memo):
    if event_id not in memo:
        found = {event_id}
        for cited in fetch(event_id).auth_event_ids:
            found |= chain(cited, fetch, memo)
        memo[event_id] = found
    return memo[event_id]


def resolve_v2(states, fetch, v):
    memo = {}
    keys = {key for state in states for key in state}
    unconflicted = {key: states[0].get(key) for key in keys if len({state.get(key) for state in states}) == 1}
    conflicted = {state[key] for key in keys - set(unconflicted) for state in states if key in state}
    if not conflicted:
        return unconflicted
    chains = [set().union(*(chain(id_, fetch, memo) for id_ in state.values())) for state in states]
    full = conflicted | (set().union(*chains) - set.intersection(*chains))
    if v >= 12:
        everything = set().union(*(chain(id_, fetch, memo) for id_ in conflicted))
        full |= {id_ for id_ in everything if chain(id_, fetch, memo) & conflicted}

    def is_power(event):
        if event.key in [("m.room.power_levels", ""), ("m.room.join_rules", ""), ("m.room.create", "")]:
            return True
        return (
            event.type == "m.room.member"
            and event.content.get("membership") in ("leave", "ban")
            and event.sender != event.state_key
        )

    picked = {id_ for id_ in full if is_power(fetch(id_))}
    while True:
        more = {cited for id_ in picked for cited in fetch(id_).auth_event_ids if cited in full} - picked
        if not more:
            break
        picked |= more

    def rank(id_):
        event = fetch(id_)
        auth = {fetch(cited).key: fetch(cited) for cited in event.auth_event_ids}
        if v >= 12:
            auth["m.room.create", ""] = fetch("$" + event.room_id[1:])
        power = user_level(auth, event.sender, v) if ("m.room.create", "") in auth else 0
        return (-power, event.origin_server_ts, id_)

    ordered = []
    left = set(picked)
    while left:
        ready = [id_ for id_ in left if not set(fetch(id_).auth_event_ids) & left]
        ordered.append(min(ready, key=rank))
        left.remove(ordered[-1])

    def apply(state, ids):
        for id_ in ids:
            event = fetch(id_)
            auth = {fetch(cited).key: fetch(cited) for cited in event.auth_event_ids}
            auth = {key: cited for key, cited in auth.items() if key in wanted(event)}
            auth.update({key: fetch(state[key]) for key in wanted(event) if key in state})
            if v >= 12:
                auth["m.room.create", ""] = fetch("$" + event.room_id[1:])
            if allowed(event, auth):
                state[event.key] = id_
        return state

    state = apply({} if v >= 12 else dict(unconflicted), ordered)

    def above(id_):
        for cited in fetch(id_).auth_event_ids:
            if fetch(cited).key == ("m.room.power_levels", ""):
                return cited
        return None

    mainline = []
    at = state.get(("m.room.power_levels", ""))
    while at:
        mainline.append(at)
        at = above(at)

    def position(id_):
        at = above(id_)
        while at and at not in mainline:
            at = above(at)
        return mainline.index(at) if at else float("inf")

    rest = sorted(full - picked, key=lambda id_: (-position(id_), fetch(id_).origin_server_ts, id_))
    return {**apply(state, rest), **unconflicted}
