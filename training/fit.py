"""From images to a run folder: plan, learn, keep the best weights, calibrate."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import MixedPrecision, Precision
from lightning_fabric.strategies.ddp import DDPStrategy

from datasets.load import Loader
from datasets.sample import Dataset, Split
from datasets.split import assign
from inspection.errors import ConfigInvalid, DataInvalid, InspectionError, OutputUnwritable
from inspection.files import write_text
from inspection.modelfile import DataRecord
from inspection.progress import Meter, track
from models import build
from models.backbones import weights_of
from models.network import Network
from models.options import ClassifierOptions
from training.calibration import Calibrator, networks_compared
from training.config import Hardware, TrainConfig, differences
from training.gradient import Learner
from training.plan import Plan, plan
from training.run import (
    BEST,
    CALIBRATION,
    CHECKPOINT,
    RECORD,
    WRITTEN,
    Best,
    Run,
    RunRecord,
    begin,
    clear,
    cpu_clock,
    now,
    save_record,
    save_tensors,
    versions,
)
from training.scoring import gathered, stream
from training.selection import figures

Say = Callable[[str], None]


def fit(
    config: TrainConfig, dataset: Dataset, out: str | Path, *, restart: bool = False, say: Say = lambda _: None
) -> Run:
    """Trains a network on `dataset` into the run folder `out`; goes on where an earlier start of the same run stopped.

    Args:
        config: what is asked.
        dataset: samples; those without a split get one by `config.split`.
        out: the run folder. A finished run of the same config and data is returned as it is.
        restart: removes a run that stands there first.
        say: is told, in one sentence each, what was chosen and what is done.

    Raises:
        ConfigInvalid: the config cannot be carried out, or the loss diverges.
        DataInvalid: the data cannot teach this, or `out` holds a run of another config or other data.
        ImageUnreadable, InputMismatch: an image cannot be used; names it.
        OutputUnwritable: `out` cannot be written.
    """
    out = Path(out)
    started, cpu = time.monotonic(), cpu_clock()
    fabric, plugin, precision = _fabric(config.hardware)
    fabric.launch()
    say = say if fabric.is_global_zero else lambda _: None
    with _threads(config.hardware.threads):
        shares = config.split
        dataset = assign(
            dataset,
            {"train": shares.train, "calibration": shares.calibration, "test": shares.test},
            seed=shares.seed,
            calibration_share=shares.calibration / (shares.train + shares.calibration),
        )
        planned = plan(config, dataset)
        config = planned.config
        assert config.model is not None
        resumed = _lay_out(fabric, planned, dataset, out, restart, _machine(fabric, precision))
        run = Run(out)
        if run.finished:
            say(f"{out} is finished already: nothing was done. Train anew with --restart, or to another --out.")
            return run
        record = run.record
        say(f"{'Going on with' if resumed else 'Training'} {planned.sentence}.")

        network = build(config.model, planned.spec, planned.classes, config.seed)
        loader = Loader(planned.spec, budget=config.hardware.cache)
        _read_all(loader, dataset, config, quiet=not fabric.is_global_zero)
        if network.learns == "gradient":
            learner = Learner(fabric, plugin, config, network, dataset, loader, out, record, (started, cpu))
            record, kept = learner.run()
        else:
            kept = _remember(fabric, config, network, dataset, loader)
            record = record.model_copy(
                update={"best": Best(step=0, criterion="a memory bank has no steps to choose from")}
            )
            if fabric.is_global_zero:
                save_tensors(out / BEST, {"weights": kept.state_dict()})
        if fabric.is_global_zero:
            _finish(kept, config, dataset, loader, fabric.device, out, record, (started, cpu))
        fabric.barrier()
    return Run(out)


def is_first() -> bool:
    """Whether this is the process that speaks, where several train together."""
    return not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0


def _lay_out(
    fabric: Fabric, planned: Plan, dataset: Dataset, out: Path, restart: bool, machine: dict[str, str | int | bool]
) -> bool:
    """Makes the run folder, or finds that this very run stands there; says whether it does.

    The first process looks and writes. Where it finds a reason to refuse, it raises it and the others leave in silence.
    """
    resumed, problem = False, None
    if fabric.is_global_zero:
        config = planned.config
        assert config.model is not None
        try:
            weights = weights_of(config.model)
            data = DataRecord(name=dataset.name, fingerprint=dataset.fingerprint(), counts=dataset.counts())
            resumed = _standing(out, config, dataset, data, restart) is not None
            if not resumed:
                record = RunRecord(
                    name=out.resolve().name,
                    network=config.model.kind,
                    task=planned.task,
                    sentence=planned.sentence,
                    seed=config.seed,
                    input=planned.spec,
                    classes=list(planned.classes),
                    data=data,
                    weights=weights.source,
                    weights_licence=weights.licence,
                    versions=versions(),
                    machine=machine,
                    started=now(),
                )
                begin(out, config, dataset, record)
        except InspectionError as error:
            problem = error
    resumed, failed = fabric.broadcast((resumed, problem is not None))
    if problem is not None:
        raise problem
    if failed:
        raise SystemExit(1)
    return resumed


def _standing(out: Path, config: TrainConfig, dataset: Dataset, data: DataRecord, restart: bool) -> Run | None:
    """The run that stands in `out` and can go on; None where there is none yet. Raises where another one is there."""
    if restart and (out / RECORD).is_file():
        clear(out)
    if not (out / RECORD).is_file():
        if out.exists() and not out.is_dir():
            raise OutputUnwritable("this is a file, and a run is a folder.", where=str(out), hint="Give another --out.")
        return None
    for leftover in (file for stem in WRITTEN for file in out.glob(f".{stem}-*")):
        leftover.unlink(missing_ok=True)  # half written when an earlier start was killed
    run = Run(out)
    changed = differences(run.config, config)
    if run.record.data.fingerprint != data.fingerprint:
        changed.append("the images, or what is known of them")
    elif _dealt(run.dataset()) != _dealt(dataset):
        changed.append("the splits of the images")
    if changed:
        raise DataInvalid(
            f"a run with other settings stands here: {'; '.join(changed[:5])}.",
            where=str(out),
            hint="Give another --out, or --restart to remove it and train anew.",
        )
    return run


def _dealt(dataset: Dataset) -> set[tuple[Path, Split | None]]:
    return {(sample.path.resolve(), sample.split) for sample in dataset}


def _fabric(hardware: Hardware) -> tuple[Fabric, Precision, str]:
    """Fabric for this machine, its precision plugin, and the precision that `auto` came to."""
    cuda = torch.cuda.is_available() and hardware.accelerator in ("auto", "cuda")
    if hardware.accelerator == "cuda" and not cuda:
        raise ConfigInvalid("no CUDA device is there.", where="hardware.accelerator", hint="Leave it at auto.")
    if hardware.accelerator == "mps" and not torch.backends.mps.is_available():
        raise ConfigInvalid("no MPS device is there.", where="hardware.accelerator", hint="Leave it at auto.")
    accelerator = "cuda" if cuda else "mps" if hardware.accelerator == "mps" else "cpu"
    precision: str = hardware.precision
    if precision == "auto":
        half = torch.cuda.is_bf16_supported() if cuda else accelerator == "cpu" and _cpu_has_bf16()
        precision = "bf16-mixed" if half else "32-true"
    if precision == "16-mixed" and accelerator != "cuda":
        raise ConfigInvalid("16-mixed needs a CUDA device.", where="hardware.precision", hint="Take bf16-mixed.")
    several = hardware.devices != 1 or hardware.nodes > 1
    plugin = MixedPrecision(precision, accelerator) if precision.endswith("mixed") else Precision()  # type: ignore[arg-type]
    fabric = Fabric(
        accelerator=accelerator,
        # On the CPU `auto` is one process: its threads use all cores already.
        devices=1 if hardware.devices == "auto" and accelerator == "cpu" else hardware.devices,
        num_nodes=hardware.nodes,
        # A network of several heads leaves some out for a batch of which nothing is known.
        strategy=DDPStrategy(find_unused_parameters=True) if several and accelerator != "mps" else "auto",
        plugins=[plugin],
    )
    return fabric, plugin, precision


def _cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 itself; where it does not, bfloat16 is slower than float32."""
    with contextlib.suppress(OSError):
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        return "avx512_bf16" in flags or "amx_bf16" in flags
    return False


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Sets torch's threads and deterministic algorithms for a while."""
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(count or before[0])
    # warn_only: a network may use an operation that has no deterministic form on a GPU.
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # costs time for nothing
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])


def _machine(fabric: Fabric, precision: str) -> dict[str, str | int | bool]:
    device = fabric.device
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "devices": fabric.world_size,
        "precision": precision,
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
    }


def _read_all(loader: Loader, dataset: Dataset, config: TrainConfig, *, quiet: bool) -> None:
    """Reads every image once before the first step, if all fit into memory: a damaged one is found now, not later."""
    samples = [*dataset.of("train"), *dataset.of("calibration")]
    spec = loader.spec
    # With its mask, which takes a byte for each pixel.
    one = spec.height * spec.width * (spec.channels * np.dtype(spec.dtype).itemsize + 1)
    if len(samples) * one > config.hardware.cache:
        return
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        read = pool.map(loader.load, samples)
        for _ in read if quiet else track(read, "reading images", len(samples)):
            pass


def _remember(fabric: Fabric, config: TrainConfig, network: Network, dataset: Dataset, loader: Loader) -> Network:
    """One pass over the good images. It is short: after a kill it starts anew."""
    good = [sample for sample in dataset.of("train") if sample.label == "good"]
    network.to(fabric.device).eval()
    torch.manual_seed(config.seed)
    with torch.inference_mode(), Meter("remembering good images", len(good)) as meter:
        for first in range(0, len(good), config.batch):
            part = good[first : first + config.batch]
            pixels = np.stack([loader.load(sample).pixels for sample in part])
            network.remember(torch.from_numpy(pixels).to(fabric.device))
            meter.step(len(part))
        network.settle()
    return network


def _finish(
    network: Network,
    config: TrainConfig,
    dataset: Dataset,
    loader: Loader,
    device: torch.device,
    out: Path,
    record: RunRecord,
    clock: tuple[float, float],
) -> None:
    """Scores the calibration split with the kept weights, chooses the operating point, and closes the record."""
    samples = dataset.of("calibration").samples
    calibrator, parts = Calibrator(record.input), []
    label = "scoring the calibration split"
    for part in stream(network, samples, loader, device, batch=config.batch, progress=label):
        for number, sample in enumerate(part.samples):
            values = None if part.map is None else part.map[number]
            calibrator.add(loader.load(sample), float(part.score[number]), values)
        parts.append(part._replace(map=None))
    good_class = config.model.good_class if isinstance(config.model, ClassifierOptions) else None
    found = figures(gathered(samples, parts), network.classes, good_class)
    result = calibrator.result(config.asks, networks_compared(record)) if record.task == "defect" else None
    if result is not None:
        write_text(out / CALIBRATION, result.model_dump_json(indent=2) + "\n")
    closed = record.model_copy(
        update={
            "status": "finished",
            "calibration": found,
            "wall_seconds": record.wall_seconds + time.monotonic() - clock[0],
            "cpu_seconds": record.cpu_seconds + cpu_clock() - clock[1],
            "finished": now(),
        }
    )
    save_record(out, closed)
    with contextlib.suppress(OSError):
        (out / CHECKPOINT).unlink(missing_ok=True)  # a finished run does not go on
