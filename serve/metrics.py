"""What the service counts, for Prometheus.

At every moment, for each model: requests = verdicts (OK + NG + REVIEW + ERROR) + refused + in flight. All counting
happens on the event loop, so no scrape sees half a step.
"""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST as MEDIA_TYPE
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from inspection.results import Verdict

# A takt is 50 ms to some seconds: fine steps there.
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10, 30)
STAGES = ("receive", "queue", "decode", "prepare", "network", "postprocess", "whole")

__all__ = ["MEDIA_TYPE", "Metrics"]


def problems(registry: CollectorRegistry) -> Counter:
    """What every door counts of its refusals."""
    what = "Problem answers of all endpoints, by status and code."
    return Counter("inspection_problems", what, ("status", "code"), registry=registry)


class Metrics:
    """The counters of one service, in a registry of their own."""

    def __init__(self, model: str) -> None:
        self.registry = CollectorRegistry()
        self._model = model
        self._requests = Counter(
            "inspection_requests", "Images that were sent to be judged.", ("model",), registry=self.registry
        ).labels(model)
        self._verdicts = Counter(
            "inspection_verdicts", "Images judged, by verdict.", ("model", "verdict"), registry=self.registry
        )
        self._refused = Counter(
            "inspection_refused",
            "Images not judged, by the code of the problem.",
            ("model", "code"),
            registry=self.registry,
        )
        self._in_flight = Gauge(
            "inspection_in_flight", "Images received, waiting or in work.", ("model",), registry=self.registry
        ).labels(model)
        self._problems = problems(self.registry)
        self._seconds = Histogram(
            "inspection_stage_seconds",
            "Seconds by stage of one image.",
            ("model", "stage"),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.ready = Gauge("inspection_ready", "1 while images are judged.", ("model",), registry=self.registry).labels(
            model
        )
        self._info = Gauge(
            "inspection_model",
            "Always 1; its labels say which model is in service.",
            ("model", "name", "hash", "provider", "version"),
            registry=self.registry,
        )
        # A series that starts at 0 is seen from its first count on, and its rate is right.
        for verdict in Verdict:
            self._verdicts.labels(model, verdict.value)
        self._stages = {stage: self._seconds.labels(model, stage) for stage in STAGES}

    def arrived(self) -> None:
        """One more image to judge."""
        self._requests.inc()
        self._in_flight.inc()

    def judged(self, verdict: Verdict, seconds: dict[str, float]) -> None:
        """It has a verdict."""
        self._in_flight.dec()
        self._verdicts.labels(self._model, verdict.value).inc()
        for stage, value in seconds.items():
            if stage in self._stages:
                self._stages[stage].observe(value)

    def refused(self, code: str) -> None:
        """It has none, because of `code`."""
        self._in_flight.dec()
        self._refused.labels(self._model, code).inc()

    def problem(self, status: int, code: str) -> None:
        """Any endpoint answered with a problem."""
        self._problems.labels(str(status), code).inc()

    def loaded(self, name: str, model_hash: str, provider: str, version: str) -> None:
        """Says which model is in service."""
        self._info.labels(self._model, name, model_hash, provider, version).set(1)

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)
