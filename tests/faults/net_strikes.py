"""Network faults of a run: which rule each kind sets up, how many hits prove it, and when the network is whole again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.faults.net_late import Late, Twice
from tests.faults.net_rules import Aimed, Cut, Delay, Drop, HalfOpen, Hold, HoldFind
from tests.faults.proxy import Rule
from tests.faults.schedule import NETWORK
from tests.faults.wire import Api

if TYPE_CHECKING:
    import random

    from tests.faults.proxy import Proxy
    from tests.faults.schedule import NetworkKind

HITS_WITHIN_S = 100.0
OVER_WITHIN_S = 15.0

Wait = Callable[[str, Callable[[], bool], float], float]

# Rule, what it aims at (all it can where nothing is said), and the hits that prove it.
RULES: dict[NetworkKind, tuple[type[Aimed], tuple[Api, ...], int]] = {
    "drop": (Drop, (), 12),
    "delay": (Delay, (), 60),
    "half-open": (HalfOpen, (), 5),
    "cut-answer": (Cut, (), 12),
    "reset-twice": (Twice, (Api.END_TXN,), 4),
    "late-end": (Late, (Api.END_TXN,), 8),
    "late-offsets": (Late, (Api.TXN_OFFSET_COMMIT,), 8),
    "late-add-offsets": (Late, (Api.ADD_OFFSETS,), 8),
    # Few: after many of them the client never sends its TxnOffsetCommit, and only 12 s later the worker gives that commit up.
    "late-produce": (Late, (Api.PRODUCE,), 3),
    "hold-fetch": (Hold, (Api.FETCH,), 5),
    "hold-find": (HoldFind, (), 6),
}
assert RULES.keys() == set(NETWORK)


def break_network(kind: NetworkKind, share: float, proxy: Proxy, dice: random.Random, prefix: str, wait: Wait) -> str:
    """Break the network in one way until that has hit often enough, then let it heal.

    Args:
        kind: how.
        share: of the usual hits, this many are enough.
        proxy: where.
        dice: which requests, when, for how long.
        prefix: of the transactional ids that are meant.
        wait: waits for a condition, and raises if it does not come.

    Returns:
        What was hit.
    """
    make, aims, usual = RULES[kind]
    wanted = max(1, round(share * usual))
    rule = make(proxy, dice, prefix, aims) if aims else make(proxy, dice, prefix)
    proxy.rule = rule
    try:
        took = wait(f"{wanted} hits", lambda: rule.hits >= wanted, HITS_WITHIN_S)
        rule.stopping = True
        wait("the last of them being over", lambda: rule.open == 0, OVER_WITHIN_S)
    finally:
        proxy.rule = Rule()
    if proxy.errors:
        raise RuntimeError(f"the proxy made mistakes: {proxy.errors[:3]}")
    return f"{rule.hits} hits in {took:.1f} s: {rule.words()}"
