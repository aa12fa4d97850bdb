"""The kinds of store there are. Changelog, snapshots and restore ask the same of each."""

from streamer.state.join_store import JoinStore
from streamer.state.match_store import MatchStore
from streamer.state.store import Store

# `apply(Delta)` is the only way they change; `dump` and `load` are all of them; `spec` has their shape.
Stateful = Store | JoinStore | MatchStore
