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
        # One family for all views (outputs, cameras): the format allows a name's TYPE only once.
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for name, counts in self._counters().items():
            kind, _, own = name.partition(" ")
            prefix = "inspection" if name == "line" else f"inspection_{kind}"
            _add(families, counts, prefix, {kind: own} if own else {})
        yield from families.values()


def _add(
    families: dict[str, CounterMetricFamily | GaugeMetricFamily],
    counts: dict[str, int],
    prefix: str,
    own: dict[str, str],
) -> None:
    for key, value in counts.items():
        labels = own | {"verdict": key} if key in VERDICTS else own
        name = f"{prefix}_{'parts' if key in VERDICTS else key.replace(' ', '_')}"
        if name not in families:
            about = "Parts by verdict." if key in VERDICTS else f"`{key}` of the account."
            family = GaugeMetricFamily if key in LEVELS else CounterMetricFamily
            families[name] = family(name, about, labels=list(labels))
        families[name].add_metric(list(labels.values()), value)
