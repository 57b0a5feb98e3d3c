"""The curves of a run: rows in a CSV file, and the same to TensorBoard. A resumed run leaves no row twice."""

from __future__ import annotations

import csv
import io
import logging
from pathlib import Path

from inspection.files import unwritable, write_text
from training.run import BOARD, METRICS

COLUMNS = (
    "step", "epoch", "seconds", "rate", "images_per_second", "loss",
    "auroc", "average_precision", "balanced_accuracy",
)  # fmt: skip


class History:
    """Appends rows; those after `step` (of a start that was killed) are taken out first.

    Raises:
        OutputUnwritable: the folder cannot be written.
    """

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        self._path = folder / METRICS
        kept = [row for row in self._rows() if int(row["step"]) <= step]
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept)
        write_text(self._path, text.getvalue())
        logging.getLogger("tensorboard").setLevel(logging.ERROR)
        self._board = SummaryWriter(str(folder / BOARD), purge_step=step + 1)

    def add(self, step: int, values: dict[str, float], parts: dict[str, float] | None = None) -> None:
        """One row; `parts` (of the loss) go to TensorBoard only, because they differ between networks."""
        row = {"step": step, **{name: f"{value:.6g}" for name, value in values.items()}}
        try:
            with self._path.open("a", newline="") as file:
                csv.DictWriter(file, COLUMNS, lineterminator="\n").writerow(row)
            for name, value in {**values, **{f"loss/{name}": value for name, value in (parts or {}).items()}}.items():
                self._board.add_scalar(name, value, step)
        except OSError as error:
            raise unwritable(self._path, error) from error

    def close(self) -> None:
        """Writes what TensorBoard still holds back."""
        self._board.close()

    def _rows(self) -> list[dict[str, str]]:
        if not self._path.is_file():
            return []
        with self._path.open(newline="") as file:
            # A row that a kill cut short has fewer fields.
            return [row for row in csv.DictReader(file) if row.get("step") and None not in row.values()]
