"""Metrics of the workers under test, as Prometheus would read them."""

from collections.abc import Mapping, Sequence

from streamer.errors import StreamerError
from streamer.telemetry.metrics import TABLE, Metrics, Together

_OF_A_HISTOGRAM = {"_sum": set[str](), "_count": set[str](), "_bucket": {"le"}}


def sample(metrics: Sequence[Metrics], name: str, labels: Mapping[str, str]) -> float:
    """One sample of what several workers of a process have counted; 0 while there is none.

    Raises:
        StreamerError: there is no such metric, or it has other labels.
    """
    if set(labels) != (known := _labels(name)):
        has = "not a metric" if known is None else f"a metric with the labels {', '.join(sorted(known)) or '-'}"
        raise StreamerError(f"{name} is {has}; docs/metrics.md lists them")
    for family in Together(metrics).collect():
        for each in family.samples:
            if each.name == name and each.labels == labels:
                return float(each.value)
    return 0.0


def _labels(name: str) -> set[str] | None:
    """Labels of a sample, None where no metric has it."""
    for metric in TABLE:
        if metric.kind != "histogram" and name == metric.name:
            return set(metric.labels)
        for suffix, more in _OF_A_HISTOGRAM.items():
            if metric.kind == "histogram" and name == metric.name + suffix:
                return {*metric.labels, *more}
    return None
