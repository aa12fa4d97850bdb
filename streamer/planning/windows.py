"""The stage that keeps the state of a flow: one line here for each kind of store."""

from collections.abc import Callable
from types import NoneType
from typing import Any

from streamer.operators.closing.spec import ClosingSpec
from streamer.operators.closing.stage import CloseStage
from streamer.operators.join.spec import JoinSpec
from streamer.operators.join.stage import JoinStage
from streamer.operators.operator import Keyed, Ticked
from streamer.operators.rekey.receive import RekeyedWindows
from streamer.operators.rekey.tick_schedule import TickSchedule
from streamer.operators.rolling.stage import WindowStage
from streamer.operators.rolling.store import RollingSpec
from streamer.planning.plan import Plan
from streamer.settings.settings import Settings


def window_of(plan: Plan, settings: Settings) -> Keyed:
    """The stage of a flow; behind another key it hears of time from the partitions of the source."""
    kind = next(kind for kind in type(plan.store).__mro__ if kind in _STAGES)
    return _STAGES[kind](plan, settings)


def _rolling(plan: Plan, settings: Settings) -> Keyed:
    stage = WindowStage(spec=_store(plan), needs=plan.needs, features=plan.features, keys_max=settings.keys_max)
    return _timed(plan, stage)


def _closing(plan: Plan, settings: Settings) -> Keyed:
    stage = CloseStage(
        spec=_store(plan), needs=plan.needs, features=plan.features, keys_max=settings.keys_max,
        final=plan.emit != "each", each=plan.emit != "on_close", topic=plan.topics.source,
    )  # fmt: skip
    return _timed(plan, stage)


def _joining(plan: Plan, settings: Settings) -> Keyed:
    joins = plan.joins
    assert joins is not None, "who has the state of joins has joins"
    return JoinStage(
        spec=joins.spec, needs=plan.needs, features=plan.features, keys_max=settings.keys_max,
        event=plan.event, events=tuple(each.event for each in joins.inputs), idle_timeout_s=joins.idle_timeout_s,
    )  # fmt: skip


def _timed(plan: Plan, stage: Ticked) -> Keyed:
    if plan.rekey is None:
        return stage
    moments = _store(plan).window.moments_us
    return RekeyedWindows(stage, None if moments is None else TickSchedule(*moments))


def _store(plan: Plan) -> Any:
    """The shape of its state, which is of the kind that the table found."""
    return plan.store


_STAGES: dict[type, Callable[[Plan, Settings], Keyed]] = {
    NoneType: _rolling,
    RollingSpec: _rolling,
    ClosingSpec: _closing,
    JoinSpec: _joining,
}
