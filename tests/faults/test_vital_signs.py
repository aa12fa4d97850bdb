"""Memory, descriptors and threads over time: what counts as growth and what does not."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from tests.faults.vital_signs import Sample, grown, sample, slope_mib


def _samples(rss_mib: float = 0.0, descriptors: float = 0.0, threads: float = 0.0) -> list[Sample]:
    """An hour, a sample each ten seconds; so much more of each an hour, beside a saw of two that comes and goes."""
    found = []
    for at in range(0, 3600, 10):
        hours, saw = at / 3600, at % 20 / 10
        found.append(Sample(at, 300 + rss_mib * hours + saw, round(40 + descriptors * hours + saw), round(20 + threads * hours)))
    return found


def test_this_process_has_what_it_has() -> None:
    before = sample(os.getpid(), 0.0)
    wait = threading.Event()
    thread = threading.Thread(target=wait.wait)
    thread.start()
    with Path(os.devnull).open():
        after = sample(os.getpid(), 1.0)
    wait.set()
    thread.join()
    assert (after.descriptors - before.descriptors, after.threads - before.threads) == (1, 1)
    assert 10 < after.rss_mib < 10_000


@pytest.mark.parametrize(("rss_mib", "slope"), [(0.0, 0.0), (12.0, 2.0)])
def test_the_slope_is_that_of_the_last_two_thirds(rss_mib: float, slope: float) -> None:
    samples = _samples(rss_mib)
    filling = [Sample(s.at_s, s.rss_mib - (200 if s.at_s < 600 else 0), s.descriptors, s.threads) for s in samples]
    assert slope_mib(samples) == pytest.approx(slope, abs=0.05)
    assert slope_mib(filling) == pytest.approx(slope, abs=0.05)


def test_what_comes_and_goes_has_not_grown() -> None:
    assert grown(_samples()) == []
    assert [line.split()[0] for line in grown(_samples(descriptors=600, threads=600))] == ["descriptors", "threads"]
