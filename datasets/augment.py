"""Augmentation: what may differ between images of a line without making a good part bad, or a bad one good.

Albumentations does the work. Every call has its own seed, so that a run can be resumed, and repeated, image by image.
"""

from __future__ import annotations

import os
import random
import threading
from typing import TYPE_CHECKING, Annotated, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from inspection.modelfile import Value
from inspection.pixels import Pixels

if TYPE_CHECKING:
    import albumentations

Share = Annotated[float, Field(ge=0, le=1)]


class AugmentOptions(Value):
    """How far images are changed in training. Zero, or false, switches a change off."""

    horizontal_flip: bool = True
    vertical_flip: bool = True
    quarter_turns: bool = False  # of square inputs; others are turned by halves only
    rotation: Annotated[float, Field(ge=0, le=180)] = 3.0  # degrees, to either side
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.05  # share, smaller and larger
    shift: Annotated[float, Field(ge=0, lt=1)] = 0.03  # share of width and height, to either side
    brightness: Share = 0.1  # share of white, up and down
    contrast: Annotated[float, Field(ge=0, lt=1)] = 0.1  # share, less and more
    gamma: Annotated[float, Field(ge=0, lt=1)] = 0.1  # exponent 1 - gamma to 1 + gamma
    blur: Annotated[float, Field(ge=0, le=20)] = 0.7  # highest sigma, in pixels
    blur_share: Share = 0.1  # of images
    noise: Annotated[float, Field(ge=0, le=1)] = 0.015  # highest sigma, as a share of white
    noise_share: Share = 0.2  # of images


class Augmentation:
    """Changes pixels and mask alike, as `options` allow.

    Args:
        options: how far.
        white: the highest value a pixel may have (`InputSpec.white`); None: the highest of its type.

    Safe to use from several threads, and to send to another process.
    """

    def __init__(self, options: AugmentOptions, white: int | None = None) -> None:
        self.options = options
        self.white = white
        self._chains = threading.local()  # a chain has random state of its own

    def __reduce__(self) -> tuple[type[Augmentation], tuple[AugmentOptions, int | None]]:
        return Augmentation, (self.options, self.white)

    def apply(
        self, pixels: Pixels, mask: NDArray[np.bool_] | None, seed: int
    ) -> tuple[Pixels, NDArray[np.bool_] | None]:
        """Changes one image; the same seed does the same.

        Args:
            pixels: `HxWxC` or `HxW`, uint8 or uint16.
            mask: `HxW`, moved with the pixels.
            seed: 0 or higher.

        Returns:
            New arrays of the same shapes and types.
        """
        geometry, light = self._chain(square=pixels.shape[0] == pixels.shape[1])
        # One stream for all steps. Compose.set_random_seed would give each step the same seed, and with it the same
        # draw: an image would be flipped both ways or not at all (albumentations 2.0.8).
        stream, draws = np.random.default_rng(seed), random.Random(seed)
        geometry.set_random_state(stream, draws)
        light.set_random_state(stream, draws)
        moved = geometry(image=pixels, mask=mask.view(np.uint8)) if mask is not None else geometry(image=pixels)
        image: Any = self._lit(moved["image"], light).reshape(pixels.shape)
        if not image.flags.c_contiguous or np.may_share_memory(image, pixels):  # nothing was changed, or only turned
            image = image.copy(order="C")
        return image, None if mask is None else np.asarray(moved["mask"] != 0, order="C")

    def _lit(self, image: NDArray[Any], light: Any) -> NDArray[Any]:
        if not light.transforms:
            return image
        highest = np.iinfo(image.dtype).max
        white = self.white or highest
        if white == 255 and image.dtype == np.uint8:
            return np.asarray(light(image=image)["image"])
        # Albumentations has no noise and a wrong gamma for uint16, and knows no 10 or 12 bit; shares of white it knows.
        share = light(image=image.astype(np.float32) * np.float32(1 / white))["image"]
        lit: NDArray[Any] = np.clip(np.rint(share * np.float32(white)), 0, white).astype(image.dtype)
        return lit

    def _chain(self, *, square: bool) -> tuple[albumentations.Compose, albumentations.Compose]:
        name = "square" if square else "oblong"
        if not hasattr(self._chains, name):
            setattr(self._chains, name, _build(self.options, square))
        chain: tuple[albumentations.Compose, albumentations.Compose] = getattr(self._chains, name)
        return chain


def _build(options: AugmentOptions, square: bool) -> tuple[albumentations.Compose, albumentations.Compose]:
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # at import it would ask the network for a newer version
    import albumentations as aug

    geometry: list[Any] = []
    if options.horizontal_flip:
        geometry.append(aug.HorizontalFlip(p=0.5))
    if options.vertical_flip:
        geometry.append(aug.VerticalFlip(p=0.5))
    if options.quarter_turns:
        half = aug.Compose([aug.HorizontalFlip(p=1), aug.VerticalFlip(p=1)], p=0.5)
        geometry.append(aug.RandomRotate90(p=0.75) if square else half)
    if options.rotation or options.scale or options.shift:
        geometry.append(
            aug.Affine(
                rotate=(-options.rotation, options.rotation),
                scale=(1 - options.scale, 1 + options.scale),
                translate_percent=(-options.shift, options.shift),
                # The border is mirrored in pixels and mask alike, so a mirrored defect is still marked as one.
                border_mode=cv2.BORDER_REFLECT_101,
                p=0.75,
            )
        )
    light: list[Any] = []
    if options.brightness or options.contrast:
        light.append(
            aug.RandomBrightnessContrast(brightness_limit=options.brightness, contrast_limit=options.contrast, p=0.75)
        )
    if options.gamma:
        light.append(aug.RandomGamma(gamma_limit=(100 * (1 - options.gamma), 100 * (1 + options.gamma)), p=0.5))
    if options.blur and options.blur_share:
        light.append(
            aug.GaussianBlur(blur_limit=0, sigma_limit=(min(0.2, options.blur), options.blur), p=options.blur_share)
        )
    if options.noise and options.noise_share:
        light.append(aug.GaussNoise(std_range=(options.noise / 4, options.noise), p=options.noise_share))
    return aug.Compose(geometry), aug.Compose(light)
