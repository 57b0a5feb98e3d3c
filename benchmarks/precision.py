"""Training and scoring speed by precision, on one CPU thread: why `hardware.precision: auto` is what it is.

    python -m benchmarks.precision [--size 256] [--batch 16]

Counts CPU seconds, so that other work on the machine does not count.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table

from inspection.allocator import keep_buffers
from inspection.modelfile import InputSpec
from models import build
from models.options import ClassifierOptions, DefectNetOptions, ModelOptions
from training.gradient import Objective
from training.mixed import spare_depthwise

NETWORKS: list[tuple[str, ModelOptions, tuple[str, ...]]] = [
    ("classifier", ClassifierOptions(), ("good", "bad")),
    ("defectnet, backbone learns", DefectNetOptions(tune_backbone="yes"), ()),
    ("defectnet, backbone frozen", DefectNetOptions(tune_backbone="no"), ()),
]


def rate(run: Callable[[], object], images: int, *, repeats: int = 3) -> float:
    """Images per CPU second, after one run to warm up."""
    run()
    began = time.process_time()
    for _ in range(repeats):
        run()
    return repeats * images / (time.process_time() - began)


def training(options: ModelOptions, classes: tuple[str, ...], precision: str, size: int, batch: int) -> float:
    """Images per CPU second of whole steps."""
    network = build(options, InputSpec(width=size, height=size, channels=1), classes)
    network.to(memory_format=torch.channels_last).train()
    if precision == "bf16, depthwise in fp32":
        spare_depthwise(network)
    objective = Objective(network)
    optimizer = torch.optim.AdamW(network.parameter_groups(1e-4), fused=True)
    pixels = torch.randint(0, 256, (batch, size, size, 1), dtype=torch.uint8)
    defective = (torch.arange(batch) % 2).float()
    masks = torch.zeros(batch, size, size, dtype=torch.bool)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision != "fp32"):
            parts = objective(pixels, defective, defective.long(), masks, defective == 0)
        torch.stack(list(parts.values())).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()

    return rate(step, batch)


def main() -> None:
    """Prints the table."""
    keep_buffers()  # as the command line does
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=16)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    precisions = ("fp32", "bf16", "bf16, depthwise in fp32")
    table = Table("network", *precisions, title=f"training, {arguments.size} px, images per CPU second")
    for name, options, classes in NETWORKS:
        rates = [training(options, classes, precision, arguments.size, arguments.batch) for precision in precisions]
        table.add_row(name, *(f"{value:.1f}" for value in rates))
    Console().print(table)


if __name__ == "__main__":
    main()
