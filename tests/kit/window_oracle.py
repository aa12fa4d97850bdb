"""What windows that close must come to, one row after the other in plain Python; knows nothing of the kernels."""

from dataclasses import dataclass, field

Sample = tuple[int, int, float]  # event time, place in the log, value


@dataclass(slots=True)
class Open:
    """A window of one key that has not closed."""

    start: int
    end: int
    samples: list[Sample] = field(default_factory=list)

    def values(self) -> list[float]:
        """Its samples by event time, ties in log order."""
        return [value for _, _, value in sorted(self.samples)]


Found = tuple[str, str, int, int, tuple[float, ...]]  # kind, key, start, end, values or (watermark,)


@dataclass(slots=True)
class Oracle:
    """One partition. Widths are whole numbers of any unit; `gap` is 0 for windows on a grid."""

    size: int
    every: int
    gap: int
    late: int
    keys_max: int = 1_000
    advances_watermark: bool = True
    watermark: int = -1
    seq: int = 0
    windows: dict[str, list[Open]] = field(default_factory=dict)
    seen: dict[str, int] = field(default_factory=dict)
    evicted: int = 0

    def row(self, key: str, time: int, value: float) -> list[Found]:
        """One row: what closes before it, then its own fate (`each`, `late` or `refused`)."""
        found = self.move(time) if self.advances_watermark else []
        self.seq += 1
        mine = self.mine(key, time)
        if not mine:
            end = time + self.gap if self.gap else time // self.every * self.every + self.size
            return [*found, ("late", key, 0, end, (self.watermark,))]
        if not self.admit(key):
            return [*found, ("refused", key, 0, 0, ())]
        if self.gap:
            mine = [self.merged(key, mine)]
        else:
            known = {window.start: window for window in self.windows[key]}
            mine = [known.get(window.start, window) for window in mine]
            self.windows[key] += [window for window in mine if window.start not in known]
        for window in mine:
            window.samples.append((time, self.seq, value))
        first = min(mine, key=lambda window: window.end)
        return [*found, ("each", key, first.start, first.end, tuple(first.values()))]

    def mine(self, key: str, time: int) -> list[Open]:
        """The windows of a row that have not closed; for sessions its own, joined with those it touches."""
        if self.gap:
            touched = [w for w in self.windows.get(key, []) if time < w.end and w.start < time + self.gap]
            own = Open(time, time + self.gap)
            return [own, *touched] if touched or own.end + self.late > self.watermark else []
        starts = range((time - self.size) // self.every * self.every, time + 1, self.every)
        grid = [Open(start, start + self.size) for start in starts if start <= time < start + self.size]
        return [window for window in grid if window.end + self.late > self.watermark]

    def merged(self, key: str, parts: list[Open]) -> Open:
        """One session of several."""
        whole = Open(min(p.start for p in parts), max(p.end for p in parts), [s for p in parts for s in p.samples])
        self.windows[key] = [w for w in self.windows[key] if all(w is not p for p in parts)] + [whole]
        return whole

    def admit(self, key: str) -> bool:
        """Whether the key has a place, made free if need be."""
        if key not in self.windows and len(self.windows) >= self.keys_max:
            idle = [other for other, windows in self.windows.items() if not windows]
            if not idle:
                return False
            gone = min(idle, key=lambda other: self.seen[other])
            del self.windows[gone], self.seen[gone]
            self.evicted += 1
        self.windows.setdefault(key, [])
        self.seen[key] = self.seq
        return True

    def move(self, time: int) -> list[Found]:
        """The watermark is at least `time`: what closes, by deadline."""
        if time <= self.watermark:
            return []  # who entered since had a window that is open at this watermark
        self.watermark = time
        closed: list[Found] = []
        for key, windows in self.windows.items():
            for window in [w for w in windows if w.end + self.late <= self.watermark]:
                windows.remove(window)
                closed.append(("final", key, window.start, window.end, tuple(window.values())))
        return sorted(closed, key=lambda row: (row[3], row[1]))
