"""What a line counts, for Prometheus: read from its own accounts at every scrape, so that they always balance."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from inspection.parts import PartResult
from inspection.results import Verdict
from serve.metrics import SECONDS, problems

Accounts = dict[str, dict[str, int]]
VERDICTS = tuple(verdict.value for verdict in Verdict)
# How much there is now; everything else only rises.
LEVELS = {"in_flight", "waiting", "spooled", "buffered", "images_waiting", "images_on_disk"}


class LineMetrics:
    """The metrics of one line, in a registry of their own.

    Args:
        counters: the line's accounts. alarms: how many there were. state: what the line is doing.
    """

    def __init__(self, counters: Callable[[], Accounts], alarms: Callable[[], int], state: Callable[[], str]) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Line(counters, alarms, state))
        self._problems = problems(self.registry)
        self._seconds = Histogram(
            "inspection_verdict_seconds",
            "Seconds from a part's last frame to its verdict.",
            buckets=SECONDS,
            registry=self.registry,
        )

    def problem(self, status: int, code: str) -> None:
        """Any endpoint answered with a problem."""
        self._problems.labels(str(status), code).inc()

    def told(self, result: PartResult) -> None:
        """A part has its verdict; one without any frame has no such time."""
        if "last_frame" in result.seconds:
            self._seconds.observe(result.seconds["decided"] - result.seconds["last_frame"])

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)


class _Line(Collector):
    def __init__(self, counters: Callable[[], Accounts], alarms: Callable[[], int], state: Callable[[], str]) -> None:
        self._counters, self._alarms, self._state = counters, alarms, state

    def describe(self) -> list[CounterMetricFamily]:
        """Nothing: what there is depends on the recipe."""
        return []

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """From one reading of all accounts."""
        alarms = CounterMetricFamily("inspection_alarms", "Alarms since the start.")
        alarms.add_metric([], self._alarms())
        state = GaugeMetricFamily("inspection_line_state", "1 for what the line is doing.", labels=["state"])
        state.add_metric([self._state()], 1)
        yield from (alarms, state)
        accounts = self._counters()
        yield from _families(accounts.pop("line", {}), "inspection", "", ())
        for name in sorted(accounts):
            kind, _, own = name.partition(" ")
            yield from _families(accounts[name], f"inspection_{kind}", kind if own else "", (own,) if own else ())


def _families(
    counts: dict[str, int], prefix: str, label: str, own: tuple[str, ...]
) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
    labels = [label] if own else []
    if all(verdict in counts for verdict in VERDICTS):
        parts = CounterMetricFamily(f"{prefix}_parts", "Parts by verdict.", labels=[*labels, "verdict"])
        for verdict in VERDICTS:
            parts.add_metric([*own, verdict], counts[verdict])
        yield parts
    for key, value in counts.items():
        if key in VERDICTS:
            continue
        kind = GaugeMetricFamily if key in LEVELS else CounterMetricFamily
        family = kind(f"{prefix}_{key.replace(' ', '_')}", f"`{key}` of the account.", labels=labels)
        family.add_metric(list(own), value)
        yield family
