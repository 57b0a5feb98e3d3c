"""What of a training configuration decides how images are fed: input and augmentation."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from datasets.augment import AugmentOptions
from datasets.load import FITTING_PIXELS, survey
from datasets.sample import Dataset
from inspection.config import load_yaml, parse
from inspection.errors import ConfigInvalid
from inspection.modelfile import InputSpec


class _Input(BaseModel):
    model_config = ConfigDict(extra="allow")  # the rest is checked as an InputSpec

    pixels: int = FITTING_PIXELS


class _Settings(BaseModel):
    """The two keys that matter here; all others are the training's."""

    input: _Input = _Input()
    augment: AugmentOptions = AugmentOptions()


def read_settings(dataset: Dataset, config: Path | None, size: str | None) -> tuple[InputSpec, AugmentOptions]:
    """The input that fits the images, as changed by `input` of the file and then by `size`, and `augment` of the file.

    Raises:
        ConfigInvalid: the file, a value in it, or `size` is wrong.
        DataInvalid, ImageUnreadable: the images do not go together, or do not open.
    """
    asked = load_yaml(config, _Settings) if config else _Settings()
    values = survey(dataset).fitting(asked.input.pixels).model_dump()
    values |= asked.input.model_dump(exclude={"pixels"}, exclude_none=True)
    if size is not None:
        found = re.fullmatch(r"(\d+)x(\d+)", size)
        if not found:
            raise ConfigInvalid(f"`{size}` is no size.", where="--size", hint="For example: 384x256 (width x height).")
        values |= {"width": int(found[1]), "height": int(found[2])}
    return parse(values, InputSpec, source="--size" if size else f"{config}, input"), asked.augment
