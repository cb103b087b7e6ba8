"""The part of the room engine that other servers reach: made and introduced to each other in one place."""

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.interfaces import IReactorTime

from federation.inbound.backfill import BackfillEndpoints
from federation.inbound.event_auth import EventAuthEndpoints
from federation.inbound.events import EventEndpoints
from federation.inbound.invites_v1 import InvitesV1Endpoints
from federation.inbound.invites_v2 import InvitesV2Endpoints
from federation.inbound.joins_v1 import JoinsV1Endpoints
from federation.inbound.joins_v2 import JoinsV2Endpoints
from federation.inbound.knocks import KnockEndpoints
from federation.inbound.leaving_v1 import LeavingV1Endpoints
from federation.inbound.leaving_v2 import LeavingV2Endpoints
from federation.inbound.openid import OpenIdEndpoints
from federation.inbound.operation import Operation
from federation.inbound.ports import KnowsUsers, ListsRooms, ReceivesEdus
from federation.inbound.public_rooms import PublicRoomsEndpoints
from federation.inbound.query import QueryEndpoints
from federation.inbound.third_party_invite import ThirdPartyInviteEndpoints
from federation.inbound.transactions import TransactionEndpoints
from federation.inbound.user_devices import UserDeviceEndpoints
from federation.inbound.user_keys import UserKeyEndpoints
from federation.rules.signing import SigningKey
from homeserver.rooms.admission import Admission
from homeserver.rooms.checking import Checking
from homeserver.rooms.current_state import CurrentState
from homeserver.rooms.enter import Enter
from homeserver.rooms.exchange import Exchange
from homeserver.rooms.extremities import Extremities
from homeserver.rooms.gaps import Gaps
from homeserver.rooms.history import History
from homeserver.rooms.invitations import Invitations
from homeserver.rooms.membership import Membership
from homeserver.rooms.moments import Moments
from homeserver.rooms.outliers import Outliers
from homeserver.rooms.partial import PartialRooms
from homeserver.rooms.peer_reading import PeerReading
from homeserver.rooms.peer_sight import PeerSight
from homeserver.rooms.peers import Peers, Verifier
from homeserver.rooms.place import Place
from homeserver.rooms.policy import Policed, PolicyServers
from homeserver.rooms.receive import Receive
from homeserver.rooms.received_transactions import ReceivedTransactions
from homeserver.rooms.resident import Resident
from homeserver.rooms.room import Rooms
from homeserver.rooms.servers import Servers
from homeserver.rooms.state_at import States
from homeserver.rooms.told import ToldStates


class FederatedRooms:
    """Rooms that span servers: receiving, entering, letting in, reading for others."""

    def __init__(
        self,
        rooms: Rooms,
        membership: Membership,
        signing_key: SigningKey,
        verifier: Verifier,
        peers: Peers,
        clock: IReactorTime,
        user_exists: Callable[[str], Awaitable[bool]],
        key_is_valid: Callable[[str, str], Awaitable[bool]],
    ) -> None:
        """``key_is_valid`` asks an identity server, by its URL, whether it still stands by a key."""
        now_ms = rooms.now_ms
        self.servers = Servers(rooms)
        self.states = States(rooms)
        self.checking = Checking(verifier, clock)
        self.outliers = Outliers(rooms, clock)
        self.policies = PolicyServers(rooms, self.servers, peers, clock)
        current_state = CurrentState(rooms, self.servers, clock)
        self.place = Place(rooms, self.states, current_state, self.policies.recommends)
        rooms.policed = Policed(rooms, self.policies, self.place)
        told = ToldStates(rooms, self.checking, self.outliers, clock)
        self.gaps = Gaps(rooms, self.place, self.checking, self.outliers, told, peers, self.policies, clock)
        self.receive = Receive(
            rooms, self.servers, self.checking, self.place, self.gaps, Extremities(rooms), self.policies, clock
        )
        self.enter = Enter(rooms, self.states, told, self.outliers, self.place, current_state)
        self.history = History(rooms, self.states, self.servers, self.checking, self.gaps, peers)
        self.moments = Moments(rooms, self.servers, self.history, peers)
        self.reading = PeerReading(rooms, self.servers, PeerSight(), now_ms, clock)
        self.resident = Resident(
            rooms, self.servers, self.states, self.checking, self.receive, membership, signing_key
        )
        self.admission = Admission(rooms, self.servers, self.resident, self.reading)
        self.exchange = Exchange(rooms, self.servers, self.resident, membership, peers, key_is_valid, user_exists)
        self.invitations = Invitations(rooms, self.servers, self.checking, self.resident, user_exists)
        self.receive.outside = self.invitations.taken_back
        self.partial = PartialRooms(
            rooms, self.states, self.place, current_state, self.gaps, self.receive, clock
        )
        self.enter.on_partial = self.partial.begin
        self._rooms = rooms

    def operations(
        self,
        edus: ReceivesEdus,
        users: KnowsUsers,
        directory: ListsRooms,
        *,
        public_rooms: bool = True,
        profiles: bool = True,
        on_life: Callable[[str], None] | None = None,
    ) -> list[Operation]:
        """Every operation for other servers that is about rooms and users.

        ``on_life`` is told of each server that pushes something; ``public_rooms`` and ``profiles`` False close these.
        """
        name = self._rooms.server_name
        transactions = TransactionEndpoints(name, self.receive, edus, ReceivedTransactions(self._rooms.log))
        transactions.on_life = on_life
        endpoints: list[Any] = [
            transactions,
            EventEndpoints(self.reading),
            EventAuthEndpoints(self.reading),
            BackfillEndpoints(self.reading),
            JoinsV1Endpoints(self.admission),
            JoinsV2Endpoints(self.admission),
            LeavingV1Endpoints(self.admission),
            LeavingV2Endpoints(self.admission),
            KnockEndpoints(self.admission),
            InvitesV1Endpoints(self.invitations),
            InvitesV2Endpoints(self.invitations),
            ThirdPartyInviteEndpoints(self.exchange),
            PublicRoomsEndpoints(directory, public_rooms),
            QueryEndpoints(name, users, directory, profiles),
            UserDeviceEndpoints(name, users),
            UserKeyEndpoints(name, users),
            OpenIdEndpoints(users),
        ]
        return [operation for endpoint in endpoints for operation in endpoint.operations()]
