"""The PyPI package elpv-dataset: 2,624 electroluminescence images of solar cells, 300 x 300 mono, from good to cracked.

Deitsch et al., "Automatic classification of defective photovoltaic module cells in electroluminescence images", Solar
Energy 185 (2019), arXiv 1807.02894. The package has the images, the annotators' probability of a defect (0, 1/3, 2/3,
1) and the type of the cell (mono- or polycrystalline). Which cells came from one module it does not say.

One thing it does not say either, and `inspection data check` shows: cells 1735 to 1784 and 2277 to 2326 are the same 50
cells, photographed twice (once less sharp). They get the same part, so that a split cannot part them.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from datasets.knowledge import settled
from datasets.sample import Sample
from inspection.errors import DataInvalid, MissingExtra

TWICE, LATER = range(1735, 1785), 542  # the second image of cell n is n + 542


def read() -> tuple[Path, list[Sample]]:
    """The folder of the package's data and its samples; a probability from 0.5 on is a defect, the type the stratum.

    Raises:
        MissingExtra: elpv-dataset is not installed.
    """
    package = importlib.util.find_spec("elpv_dataset")
    if package is None or package.origin is None:
        raise MissingExtra(
            "the package elpv-dataset is not installed.",
            hint="Install it with: pip install 'lightsout-inspection[demo]'",
        )
    root = Path(package.origin).parent / "data"
    table = root / "labels.csv"
    samples = []
    for number, line in enumerate(table.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            name, probability, cell = line.split()
            sample = Sample(path=root / name, probability=float(probability), part=_part(name), stratum=cell)
        except ValueError as error:
            raise DataInvalid("this is no line of the ELPV table.", where=f"{table}:{number}") from error
        samples.append(settled(sample, f"{table}:{number}"))
    return root, samples


def _part(name: str) -> str | None:
    number = int(Path(name).stem.removeprefix("cell"))
    first = number - LATER if number - LATER in TWICE else number
    return f"cell{first:04}" if first in TWICE else None
