"""What the data allows: the default network, its input and its classes, said in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from datasets.load import survey
from datasets.sample import Dataset, Sample
from inspection.errors import ConfigInvalid, DataInvalid
from inspection.modelfile import InputSpec
from models.options import ClassifierOptions, DefectNetOptions, ModelOptions, PatchCoreOptions
from training.batches import UNNAMED
from training.config import InputOptions, TrainConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """What is known of the images to learn from."""

    good: int
    bad: int
    located: int  # bad images with a mask or boxes
    unknown: int  # images that nobody judged
    kinds: tuple[str, ...]

    def __str__(self) -> str:
        parts = [f"{self.good} good"] if self.good else []
        if self.bad:
            where = f" ({self.located} with masks or boxes)" if self.located else ""
            parts.append(f"{self.bad} bad{where}")
        if self.unknown:
            parts.append(f"{self.unknown} not judged")
        kinds = f" of {len(self.kinds)} kinds" if len(self.kinds) > 1 else ""
        return f"{', '.join(parts)} images{kinds}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What will be trained."""

    config: TrainConfig  # with model and input filled in
    spec: InputSpec
    classes: tuple[str, ...]
    task: Literal["defect", "kinds"]
    sentence: str


def known_of(samples: Sequence[Sample]) -> Known:
    """Counts what is known."""
    bad = [sample for sample in samples if sample.label == "defect"]
    return Known(
        good=sum(sample.label == "good" for sample in samples),
        bad=len(bad),
        located=sum(sample.mask is not None or bool(sample.boxes) for sample in bad),
        unknown=sum(sample.label is None for sample in samples),
        kinds=tuple(sorted({sample.kind for sample in bad if sample.kind})),
    )


def plan(config: TrainConfig, dataset: Dataset) -> Plan:
    """Fills in what `config` leaves to the data.

    Args:
        config: what was asked.
        dataset: with splits; the train split decides.

    Raises:
        DataInvalid: nothing to learn from, or images of mixed channels or depth.
        ConfigInvalid: a network that these images cannot teach.
        ImageUnreadable: an image does not open.
    """
    samples = dataset.of("train").samples
    known = known_of(samples)
    if not known.good and not known.bad:
        raise DataInvalid(
            "there is no image that is known to be good or bad in the train split.",
            where=str(dataset.root),
            hint="`inspection data check` says what was found.",
        )
    model, why = (config.model, "as asked") if config.model else _network(known, dataset)
    if isinstance(model, DefectNetOptions) and model.tune_backbone == "auto":
        # Synthetic defects alone would teach the backbone to see what was pasted, not what is wrong.
        model = model.model_copy(update={"tune_backbone": "yes" if known.bad else "no"})
    classes = _classes(model, known, dataset)
    spec = _input(config.input, dataset.of("train"))
    filled = InputOptions(**spec.model_dump(), pixels=config.input.pixels)
    colour = "mono" if spec.channels == 1 else "RGB"
    return Plan(
        config=config.model_copy(update={"model": model, "input": filled}),
        spec=spec,
        classes=classes,
        task="defect" if known.good else "kinds",
        sentence=f"{model.kind} ({why}) on {known}, {spec.width} x {spec.height} {colour} {spec.bit_depth} bit",
    )


def _network(known: Known, dataset: Dataset) -> tuple[ModelOptions, str]:
    """The default network and why. One line a case: measure, and change the line."""
    if known.good and known.located:
        return DefectNetOptions(), "good and bad images, with places"
    if known.good and known.bad:
        return DefectNetOptions(), "good and bad images"
    if known.good:
        # defectnet with synthetic defects is near it on some data and far below on other (docs/networks.md).
        return PatchCoreOptions(), "good images alone: a memory of patches"
    if len(known.kinds) > 1:
        return ClassifierOptions(), "no good image, so kinds are told apart"
    raise DataInvalid(
        "all images are bad and of one kind: there is nothing to tell apart.",
        where=str(dataset.root),
        hint="Add images of good parts, or name the kinds of defects.",
    )


def _classes(model: ModelOptions, known: Known, dataset: Dataset) -> tuple[str, ...]:
    """The classes that the network tells apart, in the order of its output."""
    if isinstance(model, PatchCoreOptions):
        if not known.good:
            raise ConfigInvalid("patchcore learns from good images, and there are none.", where=str(dataset.root))
        return ()
    if isinstance(model, DefectNetOptions):
        if not known.good:
            raise ConfigInvalid(
                "defectnet needs good images, and there are none.", where=str(dataset.root), hint="Try classifier."
            )
        return known.kinds if len(known.kinds) > 1 else ()
    classes = known.kinds or ((UNNAMED,) if known.bad else ())
    if known.good:
        classes = (model.good_class, *classes)
    if len(classes) < 2:
        raise ConfigInvalid(
            "a classifier needs two classes, and the train split has "
            + (f"only `{classes[0]}`." if classes else "none."),
            where=str(dataset.root),
            hint="With good images alone, take defectnet or patchcore.",
        )
    return classes


def _input(asked: InputOptions, dataset: Dataset) -> InputSpec:
    """The input that fits the images: native size within the budget of pixels, own proportions, multiples of 32."""
    fitting = survey(dataset).fitting(asked.pixels).model_dump()
    given = asked.model_dump(exclude={"pixels"}, exclude_none=True)
    return InputSpec.model_validate(fitting | given)
