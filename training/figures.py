"""What an evaluation finds: one row an image, and figures over rows. Plain values, written as JSON."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import mean, stdev
from typing import Literal

from scipy import stats

from inspection.modelfile import Bound, ModelCard, OperatingPoint, Value
from inspection.results import Verdict
from training import metrics
from training.operating import Kind, upper_bound

Truth = Literal["good", "bad"]
# Of one part with several images the gravest verdict counts: nothing is OK unless all of it is.
GRAVITY = (Verdict.OK, Verdict.REVIEW, Verdict.NG, Verdict.ERROR)


class Row(Value):
    """One image of the test set and what was said of it."""

    path: str
    part: str  # the image itself where no part is known
    truth: Truth | None
    kind: str | None  # of the defect, where known
    lot: str | None
    seen: bool | None  # whether its lot was in training; None: not known
    score: float | None  # None: it could not be judged
    verdict: Verdict
    said: str | None  # the kind that the network holds it for
    reason: str | None


class Confusion(Value):
    """Parts by verdict."""

    ok: int = 0
    review: int = 0
    ng: int = 0
    error: int = 0

    @property
    def total(self) -> int:
        """All parts."""
        return self.ok + self.review + self.ng + self.error


class Figures(Value):
    """Figures of one set of images. Escape, overkill and verdicts count parts; areas and accuracy count images."""

    images: int
    good: Confusion
    bad: Confusion
    escape: Bound | None  # None: no bad part. Bounds are Clopper-Pearson: the thresholds know nothing of these images
    overkill: Bound | None
    accuracy: float | None  # images with the right verdict, of all that are known; REVIEW and ERROR are not right
    auroc: float | None
    average_precision: float | None
    f1_max: float | None
    f1_max_at: float | None


class PixelQuality(Value):
    """What the maps are worth against masks, in original pixels."""

    images: int
    regions: int
    auroc: float
    pro: float
    f1_max: float


class Slice(Value):
    """Figures of a part of the test set."""

    name: str
    figures: Figures


class KindsFound(Value):
    """Kinds of defects: how often each was named rightly (rows: truth; columns: what was said)."""

    names: list[str]
    counts: list[list[int]]
    right: int
    total: int

    @property
    def accuracy(self) -> float:
        """Share of images whose kind was named rightly."""
        return self.right / self.total


class Spread(Value):
    """One figure over several seeds."""

    name: str
    values: list[float]
    mean: float
    sd: float


class Seeds(Value):
    """The same training with other seeds."""

    seeds: list[int]
    spreads: list[Spread]


class Evaluation(Value):
    """All that an evaluation found."""

    model: str  # file
    model_hash: str
    provider: str
    data: str
    split: str
    created: str
    operating_point: OperatingPoint | None
    promised: list[Bound]  # on the calibration set
    figures: Figures
    pixels: PixelQuality | None
    kinds: list[Slice]
    lots: list[Slice]
    sessions: list[Slice]
    named: KindsFound | None
    seeds: Seeds | None = None
    warnings: list[str]
    seconds_per_image: float
    card: ModelCard
    rows: list[Row]


def figures_of(rows: Sequence[Row], promised: Iterable[Bound] = (), confidence: float = 0.95) -> Figures:
    """Figures over `rows`; `promised` says which rates were asked."""
    asked = {bound.kind: bound.asked for bound in promised}
    parts: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.truth is not None:
            parts[row.part].append(row)
    counts: dict[Truth, dict[Verdict, int]] = {truth: dict.fromkeys(GRAVITY, 0) for truth in ("good", "bad")}
    for of_part in parts.values():
        truth: Truth = "bad" if any(row.truth == "bad" for row in of_part) else "good"
        counts[truth][max((row.verdict for row in of_part), key=GRAVITY.index)] += 1
    good, bad = (_confusion(counts[truth]) for truth in ("good", "bad"))
    known = [row for row in rows if row.truth is not None]
    right = sum((row.verdict, row.truth) in ((Verdict.OK, "good"), (Verdict.NG, "bad")) for row in known)
    good_scores = [row.score for row in known if row.truth == "good" and row.score is not None]
    bad_scores = [row.score for row in known if row.truth == "bad" and row.score is not None]
    f1 = metrics.f1_max(good_scores, bad_scores)
    return Figures(
        images=len(rows),
        good=good,
        bad=bad,
        escape=_bound("escape", bad.ok, bad.total, asked, confidence),
        overkill=_bound("overkill", good.ng, good.total, asked, confidence),
        accuracy=right / len(known) if known else None,
        auroc=metrics.auroc(good_scores, bad_scores),
        average_precision=metrics.average_precision(good_scores, bad_scores),
        f1_max=f1[0] if f1 else None,
        f1_max_at=f1[1] if f1 else None,
    )


def by_kind(rows: Sequence[Row], promised: Sequence[Bound], confidence: float) -> list[Slice]:
    """For each kind of defect the bad images of that kind against all good ones; empty with fewer than two kinds."""
    kinds = sorted({row.kind for row in rows if row.truth == "bad" and row.kind})
    if len(kinds) < 2:
        return []
    good = [row for row in rows if row.truth == "good"]
    return [
        Slice(name=kind, figures=figures_of([*good, *(r for r in rows if r.kind == kind)], promised, confidence))
        for kind in kinds
    ]


def by_lot(rows: Sequence[Row], promised: Sequence[Bound], confidence: float) -> list[Slice]:
    """For each lot its own figures; empty with fewer than two lots."""
    return _slices([(row.lot, row) for row in rows], promised, confidence)


def by_session(rows: Sequence[Row], promised: Sequence[Bound], confidence: float) -> list[Slice]:
    """Lots that were in training against lots that were not; empty unless both are there."""
    names = {True: "lot seen in training", False: "lot not seen in training", None: None}
    return _slices([(names[row.seen], row) for row in rows], promised, confidence)


def named_kinds(rows: Sequence[Row], classes: Sequence[str], good_class: str = "good") -> KindsFound | None:
    """How well kinds are named; None unless the network names two that the rows know.

    Args:
        rows: judged images.
        classes: what the network tells apart.
        good_class: which of them says that there is no defect, where one does.
    """
    truths = [good_class if row.truth == "good" else row.kind for row in rows]
    known = [(t, row.said) for t, row in zip(truths, rows, strict=True) if t in classes and row.said in classes]
    if len({truth for truth, _ in known}) < 2:  # with one kind alone there is nothing to mix up
        return None
    at = {name: index for index, name in enumerate(classes)}
    counts = [[0] * len(classes) for _ in classes]
    for truth, said in known:
        counts[at[str(truth)]][at[str(said)]] += 1
    right = sum(counts[index][index] for index in range(len(classes)))
    return KindsFound(names=list(classes), counts=counts, right=right, total=len(known))


def contradictions(found: Figures) -> list[str]:
    """Promises that these images speak against: so many errors would be a 1 in 100 chance if the rate held."""
    sentences = []
    for bound in (found.escape, found.overkill):
        if bound is None or bound.asked is None:
            continue
        chance = float(stats.binom.sf(bound.errors - 1, bound.total, bound.asked))
        if chance < 0.01:
            sentences.append(
                f"{bound.kind} is {bound.errors} of {bound.total} here, and at most {bound.asked:.3g} was asked: these "
                "parts are not like those of calibration (another lot, camera or light), or were labelled otherwise."
            )
    return sentences


def spread(name: str, values: Sequence[float | None]) -> Spread | None:
    """Mean and sample standard deviation; None unless every seed has the figure."""
    known = [value for value in values if value is not None]
    if len(known) < len(values) or len(known) < 2:
        return None
    return Spread(name=name, values=known, mean=mean(known), sd=stdev(known))


def _slices(named: list[tuple[str | None, Row]], promised: Sequence[Bound], confidence: float) -> list[Slice]:
    names = sorted({name for name, _ in named if name is not None})
    if len(names) < 2:
        return []
    return [
        Slice(name=name, figures=figures_of([row for of, row in named if of == name], promised, confidence))
        for name in names
    ]


def _confusion(counts: dict[Verdict, int]) -> Confusion:
    return Confusion(**{verdict.value.lower(): count for verdict, count in counts.items()})


def _bound(kind: Kind, errors: int, total: int, asked: dict[Kind, float | None], confidence: float) -> Bound | None:
    if not total:
        return None
    upper = upper_bound(errors, total, confidence)
    return Bound(kind=kind, errors=errors, total=total, upper=upper, confidence=confidence, asked=asked.get(kind))
