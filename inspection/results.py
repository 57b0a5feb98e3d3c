"""What judging an image gives: the value types that every room speaks."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


class Verdict(StrEnum):
    """The judgement. Anything that could not be judged is `ERROR`, never `OK`."""

    OK = "OK"
    NG = "NG"
    REVIEW = "REVIEW"
    ERROR = "ERROR"


@dataclass(frozen=True, kw_only=True, slots=True)
class Defect:
    """One region that the network holds for a defect, in pixels of the original image."""

    kind: str
    score: float  # raw, monotone; the region's highest map value; compare only with the same model's
    box: tuple[int, int, int, int]  # x, y, width, height
    area: int  # original pixels under the map's cells that are above the model's pixel threshold
    zone: str | None = None  # of a recipe's zones the one that holds most of the box; only a line knows zones

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `zone` only where there is one."""
        plain = {"kind": self.kind, "score": self.score, "box": list(self.box), "area": self.area}
        return plain if self.zone is None else {**plain, "zone": self.zone}


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreMap:
    """Raw scores over the image, kept as coarse as the network gave them.

    `values` (float32, h x w) covers exactly the rectangle `region` (x, y, width, height, in original pixels; it may be
    fractional) of an image of `size` (width, height) original pixels.
    """

    values: NDArray[np.float32]
    region: tuple[float, float, float, float]
    size: tuple[int, int]

    def full(self) -> NDArray[np.float32]:
        """The map in original pixels, float32 of (height, width); outside `region` it continues the border."""
        width, height = self.size
        x, y, w, h = self.region
        if (x, y, w, h) == (0, 0, width, height):
            # Bilinear at pixel centres like the other way, and six times faster.
            return np.asarray(cv2.resize(self.values, self.size, interpolation=cv2.INTER_LINEAR), dtype=np.float32)
        rows, columns = self.values.shape
        # Pixel centres: original pixel i lies at map coordinate (i + 0.5 - offset) * cells / extent - 0.5.
        scale_x, scale_y = w / columns, h / rows
        matrix = np.array(
            [[1 / scale_x, 0, (0.5 - x) / scale_x - 0.5], [0, 1 / scale_y, (0.5 - y) / scale_y - 0.5]], dtype=np.float64
        )
        full = cv2.warpAffine(
            self.values,
            matrix,
            (width, height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return np.asarray(full, dtype=np.float32)


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspection:
    """The judgement of one image.

    Attributes:
        name: what the image was called (path, upload name, frame id).
        score: raw score of the image: higher is worse, unclamped. NaN only with `Verdict.ERROR`.
        classes: raw score (logit) by class name, where the network tells kinds apart.
        kind: the class with the highest score, where the network tells kinds apart.
        reason: one sentence, always set for `REVIEW` and `ERROR`.
        code: the code of the error (`inspection.errors`), always set for `ERROR` and only then.
        seconds: seconds by stage: `decode` (of a file), `prepare`, `network` (of its whole micro-batch), `postprocess`.
    """

    name: str
    verdict: Verdict
    score: float
    size: tuple[int, int]  # width, height of the original image
    defects: tuple[Defect, ...] = ()
    classes: dict[str, float] | None = None
    kind: str | None = None
    map: ScoreMap | None = None
    reason: str | None = None
    code: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the map."""
        return {
            "name": self.name,
            "verdict": self.verdict.value,
            "score": self.score if np.isfinite(self.score) else None,
            "kind": self.kind,
            "classes": self.classes,
            "defects": [defect.to_dict() for defect in self.defects],
            "size": {"width": self.size[0], "height": self.size[1]},
            "reason": self.reason,
            "code": self.code,
            "seconds": self.seconds,
        }
