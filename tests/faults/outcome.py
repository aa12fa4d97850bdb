"""One torture run as values: what to do, and what came of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from tests.faults.schedule import HOST

if TYPE_CHECKING:
    from tests.faults.names import Flow
    from tests.faults.schedule import Kind


@dataclass(frozen=True, slots=True)
class Plan:
    """One run: everything but the broker, so that a plan and a seed replay it.

    Attributes:
        seed: of schedule, load and dice.
        faults: kinds of faults, each once per mention; the seed orders them.
        flow: which topology: rolling, joined, rekeyed, closing, stateless, raw or missing.
        protocol: of the group: classic or consumer (KIP-848).
        rate: events offered a second, whatever the service does, as long as faults go on.
        seconds: at least this long.
        workers: at the beginning.
        keys: sensors.
        bad_share: share of bad records.
        hits: of what proves a fault of the network, and of the pauses between faults, this share is enough.
        mutant: seeded bug that the workers have, none if empty; see `mutants.py`.
    """

    seed: int
    faults: tuple[Kind, ...] = HOST
    flow: Flow = "rolling"
    protocol: str = "classic"
    rate: int = 2_000
    seconds: float = 30.0
    workers: int = 3
    keys: int = 200
    bad_share: float = 0.01
    hits: float = 1.0
    mutant: str = ""

    @property
    def replay(self) -> str:
        """The command that does it again."""
        values = asdict(self) | {"faults": ",".join(self.faults)}
        flags = (f"--{name.replace('_', '-')} {value}" for name, value in values.items() if value != "")
        return "python -m tests.faults.torture " + " ".join(flags)


@dataclass(slots=True)
class Outcome:
    """What one run showed. Green only if every fault is proven to have hit and nothing failed, or the seeded bug was found.

    Attributes:
        plan: what was to be done.
        faults: how often each kind struck.
        proofs: what shows that they hit.
        unproven: those of which nothing shows it.
        failures: what went wrong.
        kept: where to look when the run is not green.
        verdict: the checker's.
        seconds: how long it took.
    """

    plan: Plan
    faults: Counter[str] = field(default_factory=Counter)
    proofs: list[str] = field(default_factory=list)
    unproven: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    verdict: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def word(self) -> str:
        if self.plan.mutant and self.verdict:
            return "INVALID" if self.unproven else "caught" if self.verdict["violations"] else "MISSED"
        if self.failures or self.verdict.get("violations", 1):
            return "FAILED"
        return "INVALID" if self.unproven else "passed"

    @property
    def green(self) -> bool:
        return self.word in {"passed", "caught"}

    def report(self, replay: str = "") -> str:
        """The run in a few lines, the command that does it again last; where that is not the torture's it is given."""
        verdict = self.verdict
        faults = ", ".join(f"{count} {kind}" for kind, count in sorted(self.faults.items())) or "none"
        what = f"seed {self.plan.seed}, {self.plan.flow} flow, {self.plan.protocol} group"
        lines = [
            f"torture {what}: {self.word}; {self.seconds:.0f} s",
            f"  faults injected: {self.faults.total()} ({faults})",
            f"  inputs checked: {verdict.get('inputs', 0)} ({verdict.get('bad', 0)} bad, {verdict.get('late', 0)} late)",
            *([f"  windows checked at the end: {verdict['windows']}"] if verdict.get("windows") else ()),
            f"  violations: {verdict.get('violations', 'not counted')}",
            *(f"  hit: {proof}" for proof in self.proofs),
            *(f"  NOT PROVEN: {what}" for what in self.unproven),
            *(f"  FAILED: {what}" for what in self.failures),
            *(f"  violation: {what}" for what in verdict.get("first", ())),
            *(f"  kept: {what}" for what in self.kept),
            f"  replay: {replay or self.plan.replay}",
        ]
        return "\n".join(lines)
