"""Charts as inline SVG: no script, no file beside the page, sharp on paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import ArrayLike, NDArray

from inspection.modelfile import OperatingPoint
from training.metrics import Curve

BINS = 48
TAIL = 0.002  # share of the scores at either end that goes into the last bin: one outlier must not flatten the rest


@dataclass(frozen=True, kw_only=True, slots=True)
class Box:
    """Where a chart's axes are, in SVG units, and what they span."""

    left: float
    top: float
    width: float
    height: float
    low: float
    high: float

    def x(self, value: float) -> float:
        """Where `value` lies on the horizontal axis."""
        return self.left + self.width * (value - self.low) / (self.high - self.low)


def histogram(good: ArrayLike, bad: ArrayLike, point: OperatingPoint | None) -> Markup:
    """Scores of good images upwards and of bad ones downwards, each to its own scale, with both thresholds."""
    goods, bads = np.asarray(good, np.float64), np.asarray(bad, np.float64)
    every = np.concatenate([goods, bads])
    thresholds = [] if point is None else [point.ok_below, point.ng_above]
    low, high = np.quantile(every, [TAIL, 1 - TAIL])
    low, high = min([low, *thresholds]), max([high, *thresholds])
    margin = (high - low or abs(high) or 1.0) * 0.04
    box = Box(left=54, top=34, width=636, height=200, low=low - margin, high=high + margin)
    middle = box.top + box.height / 2
    parts = []
    if point is not None:
        a, b = (min(max(box.x(t), box.left), box.left + box.width) for t in thresholds)
        zones = [("ok", box.left, a), ("ng", b, box.left + box.width)] + ([("review", a, b)] if b > a else [])
        for name, start, end in zones:
            parts.append(
                f'<rect class="zone {name}" x="{start:.1f}" y="{box.top}" width="{max(0, end - start):.1f}" '
                f'height="{box.height}"/>'
            )
            if end - start > 30:
                parts.append(
                    f'<text class="zone-name {name}" x="{(start + end) / 2:.1f}" y="{box.top - 8}">'
                    f"{name.upper()}</text>"
                )
    edges = np.linspace(box.low, box.high, BINS + 1)
    for name, values, direction in (("good", goods, -1), ("bad", bads, 1)):
        counts, _ = np.histogram(np.clip(values, box.low, box.high), edges)
        scale = (box.height / 2 - 12) / max(1, counts.max(initial=0))
        for start, end, count in zip(edges[:-1], edges[1:], counts.tolist(), strict=True):
            if count:
                x, tall = box.x(float(start)), max(1.5, count * scale)
                y = middle - tall if direction < 0 else middle
                parts.append(
                    f'<rect class="{name}" x="{x + 0.6:.1f}" y="{y:.1f}" width="{box.width / BINS - 1.2:.1f}" '
                    f'height="{tall:.1f}"><title>{count} {name}, score {start:.3g} to {end:.3g}</title></rect>'
                )
        y = box.top + 14 if direction < 0 else box.top + box.height - 6
        parts.append(f'<text class="side {name}" x="{box.left - 8}" y="{y:.1f}">{name}</text>')
        parts.append(f'<text class="tick end" x="{box.left - 8}" y="{y + 14 * -direction:.1f}">{values.size}</text>')
    for value, label in zip(thresholds, ("OK below", "NG from"), strict=False):
        x = box.x(value)
        parts.append(
            f'<line class="threshold" x1="{x:.1f}" x2="{x:.1f}" y1="{box.top}" y2="{box.top + box.height}">'
            f"<title>{label} {value:.6g}</title></line>"
        )
    parts.append(f'<line class="axis" x1="{box.left}" x2="{box.left + box.width}" y1="{middle}" y2="{middle}"/>')
    bottom = box.top + box.height
    parts += [
        f'<text class="tick" x="{box.x(tick):.1f}" y="{bottom + 18}">{tick:g}</text>'
        for tick in _ticks(box.low, box.high)
    ]
    parts.append(
        f'<text class="tick" x="{box.left + box.width / 2}" y="{bottom + 36}">raw score, higher is worse</text>'
    )
    return _svg(720, 280, parts, "Histogram of scores")


def curve(points: Curve, marks: Sequence[tuple[str, float, float]], x_name: str, y_name: str) -> Markup:
    """A curve in the unit square; `marks` are (name, x, y) of operating points on it."""
    left, top, size = 46.0, 12.0, 280.0
    xs, ys = (_thinned(values, points) for values in points)
    path = " ".join(f"{left + x * size:.1f},{top + (1 - y) * size:.1f}" for x, y in zip(xs, ys, strict=True))
    parts = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        x, y = left + share * size, top + (1 - share) * size
        parts.append(f'<line class="grid" x1="{left}" x2="{left + size}" y1="{y}" y2="{y}"/>')
        parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{top}" y2="{top + size}"/>')
        parts.append(f'<text class="tick end" x="{left - 6}" y="{y + 4}">{share:.0%}</text>')
        parts.append(f'<text class="tick" x="{x}" y="{top + size + 16}">{share:.0%}</text>')
    parts.append(f'<polyline class="curve" points="{path}"/>')
    for name, x, y in marks:
        right = x < 0.6
        parts.append(f'<circle class="mark" cx="{left + x * size:.1f}" cy="{top + (1 - y) * size:.1f}" r="4.5"/>')
        parts.append(
            f'<text class="mark-name{"" if right else " end"}" x="{left + x * size + (9 if right else -9):.1f}" '
            f'y="{top + (1 - y) * size + 16:.1f}">{name}</text>'
        )
    parts.append(f'<text class="tick" x="{left + size / 2}" y="{top + size + 34}">{x_name}</text>')
    parts.append(f'<text class="tick" transform="rotate(-90)" x="{-(top + size / 2)}" y="11">{y_name}</text>')
    return _svg(344, 334, parts, f"{y_name} against {x_name}")


def bar(rate: float, upper: float, asked: float | None) -> Markup:
    """A rate as a bar, its bound as a whisker, and what was asked as a line; to a scale that shows all three."""
    top = max(upper, asked or 0, 0.01) * 1.15
    parts = [
        '<rect class="track" x="0" y="5" width="240" height="10" rx="5"/>',
        f'<rect class="bound" x="0" y="5" width="{240 * min(1, upper / top):.1f}" height="10" rx="5"/>',
        f'<rect class="rate" x="0" y="5" width="{240 * min(1, rate / top):.1f}" height="10" rx="5"/>',
    ]
    if asked is not None:
        x = 240 * asked / top
        parts.append(f'<line class="asked" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="20"/>')
    return _svg(242, 20, parts, f"rate {rate:.2%}, at most {upper:.2%}", 'preserveAspectRatio="xMinYMid" ')


def _thinned(values: NDArray[np.float64], points: Curve) -> NDArray[np.float64]:
    """At most some 600 points: more cannot be seen."""
    count = len(points[0])
    if count <= 600:
        return values
    return np.asarray(values[np.unique(np.linspace(0, count - 1, 600).astype(int))])


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers between `low` and `high`, four to nine of them."""
    raw = (high - low) / 6
    unit = 10.0 ** np.floor(np.log10(raw))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= raw)
    first = np.ceil(low / step)
    return [float(np.round(step * n, 12)) for n in np.arange(first, np.floor(high / step) + 1)]


def _svg(width: int, height: int, parts: list[str], title: str, fit: str = "") -> Markup:
    body = "".join(parts)
    return Markup(  # numbers and fixed words only: nothing to escape
        f'<svg {fit}viewBox="0 0 {width} {height}" role="img" aria-label="{title}"><title>{title}</title>{body}</svg>'
    )
