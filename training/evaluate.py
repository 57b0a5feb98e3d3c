"""Judges a split with the exported file, by the runtime of the line, and says in counts and bounds how good it is."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from datasets import open_dataset
from datasets.load import defect_mask, is_coarse
from datasets.sample import Dataset, Sample, Split
from inspection.errors import ConfigInvalid, DataInvalid
from inspection.files import write_text
from inspection.inspector import Inspector
from inspection.modelfile import ModelCard, file_hash, read_card
from inspection.progress import track
from inspection.results import Inspection, Verdict
from training import figures
from training.certify import Precision
from training.export import export
from training.figures import Evaluation, PixelQuality, Row, Seeds
from training.fit import fit
from training.metrics import PixelCounts
from training.run import BEST, Run, now

MODEL, FOLDER = "model.onnx", "evaluation"  # inside a run folder
REPORT, RESULTS = "report.html", "evaluation.json"
Say = Callable[[str], None]


def evaluate(
    target: str | Path,
    data: str | Path | Dataset | None = None,
    *,
    out: str | Path | None = None,
    split: Split = "test",
    seeds: int = 1,
    provider: str = "auto",
    say: Say = lambda _: None,
) -> Evaluation:
    """Judges `split` with a run's file or a model file; writes `evaluation.json` and `report.html`.

    Args:
        target: a run folder (its `model.onnx` is exported first where it is missing) or a model file.
        data: what to judge, with a split or without (then all of it); None: the run's own data.
        out: folder for the results; None: `evaluation` in the run folder, or beside the model file.
        split: which samples to judge.
        seeds: how many trainings to compare: the run's own, and as many more with other seeds in `RUN/seeds/S`, each
            gone on with where it was stopped.
        provider: the device.
        say: is told, in one sentence each, what is done and what to beware of.

    Raises:
        ConfigInvalid: a model file without data, or seeds without a run.
        DataInvalid: the split is empty, or a mask does not fit its image.
        ModelInvalid, ProviderUnavailable, CertificateMismatch, OutputUnwritable: as their names say.
    """
    from training.report import write_report

    target = Path(target)
    if not target.exists():
        raise DataInvalid("there is no such run or model file.", where=str(target))
    run = Run(target) if target.is_dir() else None
    model = _model_of(run, say) if run else target
    if data is None and run is None:
        raise ConfigInvalid(
            "a model file alone has no images to be judged on.",
            where=str(target),
            hint="Give a dataset too: inspection evaluate model.onnx DATA",
        )
    if seeds > 1 and run is None:
        raise ConfigInvalid("other seeds need a run to train again.", where="--seeds", hint="Give the run folder.")
    learnt = replace(run.dataset(), name=run.record.data.name) if run else None
    dataset = learnt if data is None else data if isinstance(data, Dataset) else open_dataset(data)
    assert dataset is not None
    found = judge(model, dataset, split=split, learnt=learnt, provider=provider, say=say)
    if run is not None and seeds > 1:
        found = found.model_copy(update={"seeds": _seeds(run, found, dataset, split, seeds, provider, say)})
    folder = folder_of(target, out)
    write_text(folder / RESULTS, json.dumps(found.model_dump(mode="json"), indent=1, allow_nan=False) + "\n")
    with Inspector(model, provider=provider, self_test=False) as inspector:
        write_report(found, inspector, dataset, folder / REPORT)
    return found


def folder_of(target: Path, out: str | Path | None) -> Path:
    """Where the results of `evaluate` go."""
    if out is not None:
        return Path(out)
    return (target if target.is_dir() else target.parent) / FOLDER


def judge(
    model: str | Path,
    dataset: Dataset,
    *,
    split: Split = "test",
    learnt: Dataset | None = None,
    provider: str = "auto",
    say: Say = lambda _: None,
) -> Evaluation:
    """As `evaluate`, and writes nothing. `learnt` is the data of the training, to look for what both have in common."""
    samples = dataset.of(split).samples if any(sample.split for sample in dataset) else dataset.samples
    if not samples:
        raise DataInvalid(f"there is no image in the split `{split}`.", where=str(dataset.root))
    card = read_card(model)
    warnings = leaks(samples, learnt if learnt is not None else dataset)
    if learnt is None and not any(sample.split for sample in dataset):
        warnings.append(
            "The images name no split: if some of them were trained on, every figure here is too good. "
            + ("They are the very data of the training." if dataset.fingerprint() == card.data.fingerprint else "")
        )
    for warning in warnings:
        say(f"WARNING: {warning}")
    rows, pixels, seconds = _run(model, samples, learnt, provider)
    promised = card.calibration.bounds if card.calibration else []
    confidence = promised[0].confidence if promised else 0.95
    whole = figures.figures_of(rows, promised, confidence)
    good_class = str(card.training.get("good_class") or "good")
    return Evaluation(
        model=Path(model).name,
        model_hash=file_hash(model),
        provider=seconds.provider,
        data=dataset.name,
        split=split,
        created=now(),
        operating_point=card.operating_point,
        promised=promised,
        figures=whole,
        pixels=pixels,
        kinds=figures.by_kind(rows, promised, confidence),
        lots=figures.by_lot(rows, promised, confidence),
        sessions=figures.by_session(rows, promised, confidence),
        named=figures.named_kinds(rows, card.classes, good_class),
        warnings=warnings + figures.contradictions(whole),
        seconds_per_image=seconds.per_image,
        card=_without_images(card),
        rows=rows,
    )


def leaks(samples: Sequence[Sample], learnt: Dataset) -> list[str]:
    """What the judged images have in common with those of training and calibration, in sentences."""
    judged = {sample.path for sample in samples}
    before = [sample for sample in learnt if sample.split in ("train", "calibration")]
    found = []
    known = {sample.group for sample in before if sample.lot or sample.part}
    shared = Counter(sample.group for sample in samples if sample.group in known)
    if shared:
        some = ", ".join(sorted(shared)[:3]) + (", ..." if len(shared) > 3 else "")
        found.append(
            f"{sum(shared.values())} of {len(samples)} images come from {len(shared)} lots or parts that were in "
            f"training or calibration ({some}): figures from them are better than what a new lot will give."
        )
    same = [sample for sample in before if sample.path in judged]
    if same:
        found.append(f"{len(same)} of {len(samples)} images are those of training or calibration themselves.")
    twins = _twins(samples, [sample for sample in before if sample.path not in judged])
    if twins:
        some = ", ".join(path.name for path in twins[:3]) + (", ..." if len(twins) > 3 else "")
        found.append(
            f"{len(twins)} of {len(samples)} images are, byte for byte, copies of images in training or calibration "
            f"({some}): the network has seen them."
        )
    return found


def _twins(samples: Sequence[Sample], before: Sequence[Sample]) -> list[Path]:
    """Files among `samples` that equal one of `before`; only files of equal size are read."""

    def sizes(some: Sequence[Sample]) -> dict[int, list[Path]]:
        by_size: dict[int, list[Path]] = {}
        for sample in some:
            if sample.path.is_file():
                by_size.setdefault(sample.path.stat().st_size, []).append(sample.path)
        return by_size

    ours, theirs = sizes(samples), sizes(before)
    twins = []
    for size in ours.keys() & theirs.keys():
        known = {hashlib.sha256(path.read_bytes()).digest() for path in theirs[size]}
        twins += [path for path in ours[size] if hashlib.sha256(path.read_bytes()).digest() in known]
    return sorted(twins)


class _Pace:
    """By what, and how fast."""

    def __init__(self, provider: str, seconds: float, images: int) -> None:
        self.provider = provider
        self.per_image = seconds / max(1, images)


def _run(
    model: str | Path, samples: Sequence[Sample], learnt: Dataset | None, provider: str
) -> tuple[list[Row], PixelQuality | None, _Pace]:
    lots = {sample.lot for sample in learnt or () if sample.lot and sample.split in ("train", "calibration")}
    masked = any(_outlined(sample) for sample in samples)
    counts = PixelCounts()
    rows = []
    with Inspector(model, provider=provider) as inspector:
        started = time.monotonic()
        judged = inspector.inspect_many(sample.path for sample in samples)
        for sample, inspection in zip(samples, track(judged, "judging", len(samples)), strict=True):
            rows.append(_row(sample, inspection, lots if learnt else None))
            if masked and inspection.map is not None and (sample.label == "good" or _outlined(sample)):
                counts.add(inspection.map.full(), defect_mask(sample, inspection.size))
        pace = _Pace(inspector.provider, time.monotonic() - started, len(samples))
    found = counts.figures()
    if found.auroc is None or found.pro is None or found.f1_max is None:
        return rows, None, pace
    quality = PixelQuality(
        images=counts.images, regions=counts.regions, auroc=found.auroc, pro=found.pro, f1_max=found.f1_max
    )
    return rows, quality, pace


def _outlined(sample: Sample) -> bool:
    """Whether it is known to the pixel where the defects are."""
    return sample.mask is not None or (bool(sample.boxes) and not is_coarse(sample))


def _row(sample: Sample, inspection: Inspection, lots: set[str] | None) -> Row:
    return Row(
        path=str(sample.path),
        part=sample.part or str(sample.path),
        truth=None if sample.label is None else "good" if sample.label == "good" else "bad",
        kind=sample.kind,
        lot=sample.lot,
        seen=None if lots is None or sample.lot is None else sample.lot in lots,
        score=None if inspection.verdict is Verdict.ERROR else inspection.score,
        verdict=inspection.verdict,
        said=inspection.kind,
        reason=inspection.reason,
    )


def _without_images(card: ModelCard) -> ModelCard:
    """The golden images are in the model file; a report does not need them twice."""
    if card.certificate is None:
        return card
    goldens = [golden.model_copy(update={"pixels": ""}) for golden in card.certificate.goldens]
    return card.model_copy(update={"certificate": card.certificate.model_copy(update={"goldens": goldens})})


def _model_of(run: Run, say: Say, precision: Precision = "fp32") -> Path:
    """The run's model file; exported where it is not there, or older than the run's weights."""
    model = run.path / MODEL
    if not model.exists() or model.stat().st_mtime < (run.path / BEST).stat().st_mtime:
        say(f"Exporting {run.path} first.")
        export(run, model, precision, say=say)
    return model


def _seeds(run: Run, first: Evaluation, dataset: Dataset, split: Split, count: int, provider: str, say: Say) -> Seeds:
    base = run.config.seed
    update: dict[str, object] = {}
    if run.record.schedule is not None:  # as many steps for each: a budget would give a busy hour fewer
        update = {"budget": None, "epochs": None, "steps": run.record.schedule.steps}
    seeds = [base + index for index in range(count)]
    found = [first]
    for seed in seeds[1:]:
        folder = run.path / "seeds" / str(seed)
        say(f"Seed {seed} of {seeds[0]} to {seeds[-1]}: {folder}")
        again = fit(run.config.model_copy(update={**update, "seed": seed}), run.dataset(), folder, say=say)
        model = _model_of(again, say)
        found.append(judge(model, dataset, split=split, learnt=run.dataset(), provider=provider))
    spreads = [figures.spread(name, [read(one) for one in found]) for name, read in SPREAD.items()]
    return Seeds(seeds=seeds, spreads=[spread for spread in spreads if spread is not None])


def _rate(errors: int, total: int) -> float | None:
    return errors / total if total else None


SPREAD: dict[str, Callable[[Evaluation], float | None]] = {
    "image AUROC": lambda e: e.figures.auroc,
    "average precision": lambda e: e.figures.average_precision,
    "F1-max": lambda e: e.figures.f1_max,
    "accuracy": lambda e: e.figures.accuracy,
    "escape rate": lambda e: _rate(e.figures.bad.ok, e.figures.bad.total),
    "overkill rate": lambda e: _rate(e.figures.good.ng, e.figures.good.total),
    "pixel AUROC": lambda e: None if e.pixels is None else e.pixels.auroc,
    "PRO": lambda e: None if e.pixels is None else e.pixels.pro,
    "kinds named rightly": lambda e: None if e.named is None else e.named.accuracy,
}
