"""From a run to the model file: graph, precision, operating point, certificate, all in one step or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx

from datasets.load import Loaded, Loader
from datasets.sample import Sample
from inspection.config import parse
from inspection.errors import DataInvalid, PromiseBroken
from inspection.files import writing
from inspection.inspector import Inspector
from inspection.modelfile import METADATA_KEY, Certificate, ModelCard, OperatingPoint
from models.graph import OPSET, to_onnx
from models.options import ClassifierOptions
from training import certify, quantise
from training.batches import class_of
from training.calibration import Calibrator, networks_compared
from training.certify import Precision, Said
from training.config import Asks
from training.operating import errors_at, upper_bound
from training.run import Calibrated, Run, now

RATES, COSTS = {"max_escape", "max_overkill"}, {"escape_cost", "overkill_cost"}


def export(
    run: Run,
    out: str | Path,
    precision: Precision = "fp32",
    *,
    asks: Asks | None = None,
    provider: str = "all",
    cap: int = certify.CAP,
    say: Callable[[str], None] = lambda _: None,
) -> ModelCard:
    """Writes the run's network as one model file, with an operating point and the proof that it judges alike.

    A kill at any moment leaves what was at `out` before, or the new file; so does an error.

    Args:
        run: a finished run.
        out: the file.
        precision: numbers inside the graph.
        asks: other rates or costs than the run was asked for.
        provider: device to prove, or `all` that this machine grants.
        cap: most images of calibration and of test each for the proof; the operating point uses all of calibration.
        say: is told what is done.

    Raises:
        PromiseBroken: a verdict flips, a score moves too far, or the smaller numbers cost too many parts.
        DataInvalid: the run is not finished, or has no images to prove anything on.
        ProviderUnavailable: the provider asked for is not granted.
        ImageUnreadable, InputMismatch: an image of the run is gone or damaged.
        OutputUnwritable: `out` cannot be written.
    """
    out = Path(out)
    certify.providers(provider)  # before minutes are spent
    asks = run.config.asks if asks is None else asks
    network, dataset, loader = run.network(), run.dataset(), Loader(run.spec)
    calibration = dataset.of("calibration").samples
    proof = (*calibration, *certify.spread_out(dataset.of("test").samples, cap))
    if not proof:
        raise DataInvalid("the run has neither calibration nor test images.", where=str(run.path))
    with writing(out) as path:
        to_onnx(network, path)
        if precision == "fp16":
            quantise.to_fp16(path)
        elif precision == "int8":
            quantise.to_int8(path, dataset.of("train").samples, loader)
        card = _card(run, precision)
        attach(path, card)  # without it the runtime takes no file

        of_network, of_file = Calibrator(run.spec), Calibrator(run.spec)

        naming = Naming(run)

        def see(loaded: Loaded, ours: Said, theirs: Said) -> None:
            if loaded.sample.split == "calibration":
                of_network.add(loaded, ours.score, ours.map)
                of_file.add(loaded, theirs.score, theirs.map)
                naming.add(loaded.sample, ours.kind, theirs.kind)

        compared = certify.compare(network, path, proof, loader, asked=provider, see=see)
        reference = chosen = None
        if card.task == "defect":
            among = networks_compared(run.record)
            # Thresholds are data: the file gets those of its own scores. At fp32 they are the network's.
            reference = of_network.result(asks, among)
            chosen = reference if precision == "fp32" else of_file.result(asks, among)
        if precision != "fp32" and reference is not None and chosen is not None:
            gate(reference, chosen, precision)
        if precision != "fp32":
            naming.gate(run.config.asks.confidence, precision)
        card = card.model_copy(
            update={
                "operating_point": chosen and chosen.operating_point,
                "calibration": chosen and chosen.calibration,
                "certificate": _certificate(compared, precision, reference, chosen, loader),
            }
        )
        attach(path, card)
        for parity in card.certificate.parities if card.certificate else ():
            # The self-test of the line, before there is a file to deliver.
            Inspector(path, provider=parity.provider).close()
            say(
                f"{parity.provider} {precision}: {parity.images} images, {parity.flips} verdicts flip, scores move by "
                f"at most {parity.max_difference:.1e} ({parity.tolerance:.0e} allowed)"
            )
    return card


def asks_of(asks: Asks, **changes: str | float | None) -> Asks:
    """`asks` with other values where `changes` are given. Costs and rates replace each other. Raises ConfigInvalid."""
    given = {key: value for key, value in changes.items() if value is not None}
    values = asks.model_dump()
    for some, others in ((RATES, COSTS), (COSTS, RATES)):
        if given.keys() & some:
            values = {key: value for key, value in values.items() if key not in others}
    return parse({**values, **given}, Asks, source="options")


def attach(path: Path, card: ModelCard) -> None:
    """Puts the card into the metadata of the ONNX file `path`, in place of the one that may be there."""
    model = onnx.load(path)
    others = {item.key: item.value for item in model.metadata_props if item.key != METADATA_KEY}
    onnx.helper.set_model_props(model, {**others, METADATA_KEY: card.model_dump_json()})
    onnx.save(model, path)


def gate(reference: Calibrated, chosen: Calibrated, precision: Precision) -> None:
    """Refuses smaller numbers that judge worse than chance explains, on the calibration parts.

    Both are judged at the operating point of their own scores, so what was asked of escape and overkill holds for both
    by the same argument: its rank depends on counts alone. What smaller numbers cost shows on the other side, as good
    parts that are not OK and bad parts that are not NG. The file may have as many of each as float's own count leaves
    open: its exact upper bound.

    Raises:
        PromiseBroken: with the figures of both.
    """
    confidence = reference.calibration.bounds[0].confidence
    for truth, ours, theirs, total in _missed(reference, chosen):
        _not_worse(
            f"call {{}} of {total} {truth} calibration parts what they are", ours, theirs, total, confidence, precision
        )


class Naming:
    """How many calibration images network and file name a wrong kind for; nothing where the network names none."""

    def __init__(self, run: Run) -> None:
        self._index = {name: number for number, name in enumerate(run.classes)}
        self._good = run.config.model.good_class if isinstance(run.config.model, ClassifierOptions) else None
        self.total = self.network = self.file = 0

    def add(self, sample: Sample, network: str | None, file: str | None) -> None:
        """Takes what both say of one image."""
        truth = class_of(sample, self._index, self._good)
        if truth < 0 or network is None or file is None:
            return
        self.total += 1
        self.network += self._index[network] != truth
        self.file += self._index[file] != truth

    def gate(self, confidence: float, precision: Precision) -> None:
        """As `gate`, for kinds. Raises PromiseBroken."""
        if self.total:
            what = f"name the kind of {{}} of {self.total} calibration images rightly"
            _not_worse(what, self.network, self.file, self.total, confidence, precision)


def _not_worse(what: str, ours: int, theirs: int, total: int, confidence: float, precision: Precision) -> None:
    allowed = int(upper_bound(ours, total, confidence) * total)
    if theirs > allowed:
        raise PromiseBroken(
            f"the {precision} file does not {what.format(theirs)}; in float32 these are {ours}, and up to {allowed} "
            "could be chance.",
            hint="Export with fp32, or with more training images so that int8 ranges fit better.",
        )


def _missed(reference: Calibrated, chosen: Calibrated) -> list[tuple[str, int, int, int]]:
    """For good and bad: how many are not called what they are, by the network and by the file, of how many."""
    ours, theirs = (
        errors_at(some.operating_point, some.calibration.good, some.calibration.bad) for some in (reference, chosen)
    )
    good, bad = len(reference.calibration.good), len(reference.calibration.bad)
    rows = (("good", "overkill", "good_review", good), ("bad", "escape", "bad_review", bad))
    return [(truth, ours[a] + ours[b], theirs[a] + theirs[b], total) for truth, a, b, total in rows if total]


def _certificate(
    compared: certify.Compared,
    precision: Precision,
    reference: Calibrated | None,
    chosen: Calibrated | None,
    loader: Loader,
) -> Certificate:
    def point(of: Calibrated | None) -> OperatingPoint | None:
        return None if of is None else of.operating_point

    return Certificate(
        parities=certify.parities(compared, precision, point(reference), point(chosen)),
        goldens=certify.goldens(compared, point(chosen), loader),
        golden_tolerance=certify.GOLDEN_TOLERANCE[precision],
    )


def _card(run: Run, precision: Precision) -> ModelCard:
    record, config = run.record, run.config
    training: dict[str, str | int | float | bool | None] = {
        "seed": record.seed,
        "steps": record.schedule.steps if record.schedule else None,
        "kept": f"step {record.best.step}: {record.best.criterion}" if record.best else None,
        "batch": config.batch,
        "wall_seconds": round(record.wall_seconds, 1),
        "precision": str(record.machine.get("precision")),
        "trained": record.finished,
    }
    if config.model is not None:
        training["model"] = config.model.model_dump_json()
    if isinstance(config.model, ClassifierOptions):
        training["good_class"] = config.model.good_class
    return ModelCard(
        name=record.name,
        network=record.network,
        task=record.task,
        classes=list(record.classes),
        input=record.input,
        precision=precision,
        data=record.data,
        training=training,
        versions={**record.versions, "onnx": onnx.__version__, "opset": str(OPSET)},
        weights=record.weights,
        weights_licence=record.weights_licence,
        created=now(),
    )
