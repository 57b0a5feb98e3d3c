"""What a training run is asked to do: one typed YAML file, every key with a default that fits most data.

`None` means "chosen from the data" (training.plan) or "from this machine" (training.fit); what was chosen is written
back into the run folder's `config.yaml`, so that a run always says in full what it did.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field

from datasets.augment import AugmentOptions
from inspection.config import load_yaml, parse
from inspection.errors import ConfigInvalid
from inspection.files import write_text
from inspection.modelfile import Resize, Value
from inspection.quantities import Count, Fraction, Rate, Seconds
from models.options import ModelOptions


class SplitOptions(Value):
    """How images that name no split are dealt out; whole groups (lot, else part) go to one split."""

    train: Fraction = 0.6
    calibration: Fraction = 0.2
    test: Fraction = 0.2
    seed: int = 0  # its own seed: runs with other training seeds see the same split


class InputOptions(Value):
    """What the network takes. None: from the images."""

    height: Annotated[int, Field(ge=32, le=8192)] | None = None
    width: Annotated[int, Field(ge=32, le=8192)] | None = None
    channels: Literal[1, 3] | None = None
    bit_depth: Literal[8, 10, 12, 16] | None = None  # None: 8, or 16; 10 and 12 are never guessed from values
    resize: Resize | None = None
    pixels: Annotated[int, Field(ge=1024)] = 160_000  # most pixels that a size chosen from the images may have


class OptimiserOptions(Value):
    """AdamW (arXiv 1711.05101) with a linear warm-up and a cosine to zero (arXiv 1608.03983)."""

    rate: Annotated[float, Field(gt=0)] = 1e-3  # of new layers; a network may let pretrained layers learn more slowly
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    warmup: Fraction = 0.05  # share of all steps
    clip: Annotated[float, Field(gt=0)] | None = 5.0  # highest norm of the gradient
    average: Annotated[float, Field(ge=0, lt=1)] = 0.99  # moving average of the weights per step; 0: none


class Asks(Value):
    """What the operating point must hold (training.operating). None: not asked."""

    max_escape: Rate | None = None
    max_overkill: Rate | None = None
    confidence: Rate = 0.95
    escape_cost: Annotated[float, Field(gt=0)] | None = None  # of one bad part called OK
    overkill_cost: Annotated[float, Field(gt=0)] | None = None  # of one good part called NG


class Hardware(Value):
    """Where it runs (Lightning Fabric). On several devices a step's batch is shared out among them."""

    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: Count | Literal["auto"] = 1
    nodes: Count = 1
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    threads: Count | None = None  # of torch on the CPU; None: torch's own choice
    workers: Count | None = None  # threads that load and augment; None: one on the CPU, up to eight beside a GPU
    cache: Annotated[int, Field(ge=0)] = 2_000_000_000  # bytes of prepared images that are kept in memory


class TrainConfig(Value):
    """All that a run is asked to do."""

    model: ModelOptions | None = None
    split: SplitOptions = SplitOptions()
    input: InputOptions = InputOptions()
    augment: AugmentOptions = AugmentOptions()
    optimiser: OptimiserOptions = OptimiserOptions()
    asks: Asks = Asks()
    hardware: Hardware = Hardware()

    seed: Annotated[int, Field(ge=0)] = 0
    batch: Count = 16  # images a step, over all devices
    budget: Seconds | None = None  # wall time for the whole run; steps are planned from the measured speed, then fixed
    epochs: Annotated[float, Field(gt=0)] | None = None  # passes over as many images as the train split has
    steps: Count | None = None  # of all three, the one that ends first counts; none: chosen from the data
    bad_share: Fraction | None = 0.5  # share of a batch that is drawn from bad images; None: as they come
    soft_labels: bool = False  # learn from the annotators' probability where it is given, else from good / bad
    evaluations: Annotated[int, Field(ge=0)] = 10  # how often the calibration split is scored on the way
    keep: Literal["best", "last"] = "best"  # weights: best on the calibration split, or those of the last step
    checkpoint_every: Seconds = 60.0


def read_config(path: str | Path | None, changes: dict[str, Any]) -> TrainConfig:
    """The file's values (or the defaults) with `changes` over them; keys are dotted (`"optimiser.rate"`).

    Raises:
        ConfigInvalid: the file, a key or a value is wrong; or the sum of the split's shares is not one.
    """
    config = load_yaml(path, TrainConfig) if path is not None else TrainConfig()
    if changes:
        values = config.model_dump(mode="json", exclude_unset=True)
        for key, value in changes.items():
            _put(values, key, value)
        config = parse(values, TrainConfig, source="options")
    total = config.split.train + config.split.calibration + config.split.test
    if abs(total - 1) > 1e-6:
        raise ConfigInvalid(f"the shares of `split` sum to {total:g}, and must sum to 1.", where=str(path or "split"))
    if config.split.train == 0:
        raise ConfigInvalid("`split.train` is 0: there would be nothing to learn from.", where=str(path or "split"))
    if (config.input.height is None) != (config.input.width is None):
        raise ConfigInvalid("`input` needs both height and width, or neither.", where=str(path or "input"))
    return config


def parse_change(text: str) -> tuple[str, Any]:
    """`optimiser.rate=1e-3` as key and YAML value. Raises ConfigInvalid."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigInvalid(f"`{text}` is no KEY=VALUE.", where="--set", hint="For example: --set optimiser.rate=0.001")
    try:
        read = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigInvalid(f"`{value}` is no YAML value.", where=f"--set {key}") from error
    if isinstance(read, str):  # YAML 1.1 takes 1e-3 for text
        with contextlib.suppress(ValueError):
            read = float(read)
    return key.strip(), read


def to_yaml(config: TrainConfig) -> str:
    """The whole configuration as YAML, in the order of the fields."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def write_config(config: TrainConfig, path: Path) -> None:
    """Writes the whole configuration as YAML. Raises OutputUnwritable."""
    write_text(path, to_yaml(config))


def differences(one: Value, other: Value) -> list[str]:
    """The dotted keys in which two configurations differ, with both values."""
    return _differences(one.model_dump(mode="json"), other.model_dump(mode="json"), "")


def _differences(one: Any, other: Any, at: str) -> list[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        keys = sorted({*one, *other})
        return [text for key in keys for text in _differences(one.get(key), other.get(key), f"{at}.{key}".lstrip("."))]
    return [] if one == other else [f"{at}: {one} there, {other} now"]


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    """Sets the dotted `key`. Naming another kind of model drops the options of the old one."""
    *path, last = key.split(".")
    for part in path:
        inner = values.get(part)
        values[part] = dict(inner) if isinstance(inner, dict) else {}
        values = values[part]
    if last == "kind" and values.get("kind") != value:
        values.clear()
    values[last] = value
