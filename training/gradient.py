"""Learning by gradient: an explicit loop on Lightning Fabric that can be killed at any moment.

Everything that a step needs follows from the seed and the step's number (training.batches), torch's generator included:
it is seeded anew before every step. So a checkpoint holds weights and optimiser only, and a run that was killed and
started again ends, on the CPU, with the same weights to the bit.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import Precision
from torch import Tensor, nn

from datasets.load import Loader
from datasets.sample import Dataset
from inspection.errors import ConfigInvalid
from inspection.progress import Meter
from models.network import Network, Targets
from models.options import ClassifierOptions
from training.batches import STEP, Batch, Batches, ahead, derived
from training.config import TrainConfig
from training.history import History
from training.mixed import spare_depthwise
from training.run import (
    BEST,
    CHECKPOINT,
    Best,
    RunRecord,
    Schedule,
    cpu_clock,
    load_tensors,
    save_record,
    save_tensors,
)
from training.scoring import score
from training.selection import criterion, figures, spoken

LOG_EVERY = 10  # steps
REHEARSAL = 6.0  # seconds for which the speed is measured; a short budget spends a twentieth of itself
EVALUATION_SHARE = 0.15  # of a budget that evaluations may take
DEFAULT_PASSES = 40  # over the train split, and within these steps, where nothing is asked
DEFAULT_STEPS = (300, 3000)


class Objective(nn.Module):
    """The loss as a module, so that Fabric's precision and DDP's gradient exchange wrap exactly it."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, pixels: Tensor, defective: Tensor, kind: Tensor, mask: Tensor, mask_known: Tensor
    ) -> dict[str, Tensor]:
        """Named parts of the loss; arguments as `training.batches.Batch`."""
        targets = Targets(defective=defective.float(), kind=kind, mask=mask.float(), mask_known=mask_known)
        return self.network.loss(pixels, targets)


class Average:
    """A moving average of the weights (Polyak and Juditsky 1992): what is evaluated and kept.

    The decay grows with the steps to what was asked, so that the first steps are forgotten soon.
    """

    def __init__(self, network: Network, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self._decay = decay
        own, theirs = self.network.state_dict(), network.state_dict()  # share memory with the networks
        self._pairs = [(own[name], theirs[name]) for name in own]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes the weights after `step` steps in."""
        weight = 1 - min(self._decay, (1 + step) / (10 + step))
        floats = [pair for pair in self._pairs if pair[0].is_floating_point()]
        torch._foreach_lerp_([own for own, _ in floats], [new for _, new in floats], weight)
        for own, new in self._pairs:
            if not own.is_floating_point():
                own.copy_(new)


def rate_factor(step: int, steps: int, warmup: float) -> float:
    """Share of the learning rate at `step` of `steps`: up linearly over `warmup`, then down a cosine to zero."""
    warm = max(1, round(warmup * steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


class Learner:
    """One run of the loop."""

    def __init__(
        self,
        fabric: Fabric,
        precision: Precision,
        config: TrainConfig,
        network: Network,
        dataset: Dataset,
        loader: Loader,
        out: Path,
        record: RunRecord,
        clock: tuple[float, float],
    ) -> None:
        if config.batch % fabric.world_size:
            raise ConfigInvalid(
                f"a batch of {config.batch} cannot be shared out evenly to {fabric.world_size} devices.", where="batch"
            )
        self.fabric, self.precision, self.config, self.loader = fabric, precision, config, loader
        self.out, self.record, self.clock = out, record, clock
        self.train, self.calibration = dataset.of("train").samples, dataset.of("calibration").samples
        model = config.model
        self.good_class = model.good_class if isinstance(model, ClassifierOptions) else None
        self.batches = Batches(
            self.train,
            loader,
            config.augment,
            classes=network.classes,
            good_class=self.good_class,
            batch=config.batch,
            bad_share=config.bad_share,
            soft_labels=config.soft_labels,
            seed=config.seed,
            rank=fabric.global_rank,
            world=fabric.world_size,
        )
        self.workers = config.hardware.workers or (1 if fabric.device.type == "cpu" else 8)
        network.to(fabric.device).to(memory_format=torch.channels_last)
        self.average = Average(network, config.optimiser.average) if config.optimiser.average else None
        if fabric.device.type == "cpu":
            spare_depthwise(network)  # after the average has copied it
        groups = network.parameter_groups(config.optimiser.rate)
        # A fused AdamW takes the gradient's scaler into itself, and then nothing can be clipped.
        fused = fabric.device.type in ("cpu", "cuda") and config.hardware.precision != "16-mixed"
        self.optimizer = torch.optim.AdamW(
            groups, lr=config.optimiser.rate, weight_decay=config.optimiser.weight_decay, fused=fused
        )
        self.rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.objective, self.stepper = fabric.setup(Objective(network), self.optimizer)
        self.network = network
        self.best: Best | None = None
        self.found: dict[str, float] = {}
        self.spent = (record.wall_seconds, record.cpu_seconds)  # before this start

    @property
    def candidate(self) -> Network:
        """The network whose weights are judged and kept."""
        return self.average.network if self.average else self.network

    def run(self) -> tuple[RunRecord, Network]:
        """Learns to the end; returns the record and the network with the weights that were kept."""
        first = self._resume()
        if self.record.schedule is None:
            self._amend(schedule=self.fabric.broadcast(self._schedule()))
        schedule = self.record.schedule
        assert schedule is not None
        if first < schedule.steps:
            self._loop(first, schedule)
        self.fabric.barrier()
        kept = self.candidate
        if self.best is None or self.config.keep == "last":
            why = "the calibration split has no good and bad to compare by"
            if self.config.keep == "last" or not self.config.evaluations:
                why = "asked for"
            elif not schedule.evaluate_at:
                why = "the budget left no time to compare"
            self.best = Best(step=schedule.steps, criterion=f"the last weights: {why}")
            if self.fabric.is_global_zero:
                save_tensors(self.out / BEST, {"weights": kept.state_dict()})
        else:
            kept.load_state_dict(load_tensors(self.out / BEST)["weights"])
        self._amend(best=self.best)
        return self.record, kept

    def _loop(self, first: int, schedule: Schedule) -> None:
        history = History(self.out, first) if self.fabric.is_global_zero else None
        saved = window = time.monotonic()
        sums: dict[str, Tensor] = {}
        since = first
        with Meter("training", schedule.steps, done=first) as meter:
            for step, batch in self._stream(range(first, schedule.steps)):
                parts = self._step(step, schedule.steps, batch)
                sums = {name: sums.get(name, 0) + part for name, part in parts.items()}
                done = step + 1
                meter.step()
                evaluate = done in schedule.evaluate_at
                if not (evaluate or done % LOG_EVERY == 0 or done == schedule.steps):
                    continue
                means = self._means(sums, done - since)
                row = {
                    "epoch": done * self.config.batch / len(self.train),
                    "seconds": self._wall(),
                    "rate": self.rates[-1] * rate_factor(step, schedule.steps, self.config.optimiser.warmup),
                    "images_per_second": (done - since) * self.config.batch / (time.monotonic() - window),
                    "loss": sum(means.values()),
                }
                if evaluate and self.fabric.is_global_zero:
                    self.found = self._evaluate(done)
                if evaluate:
                    self.fabric.barrier()
                if history:
                    history.add(done, {**row, **(self.found if evaluate else {})}, means)
                meter.step(0, note=", ".join(filter(None, [f"loss {row['loss']:.3f}", spoken(self.found)])))
                if evaluate or time.monotonic() - saved > self.config.checkpoint_every:
                    self._save(done)
                    saved = time.monotonic()
                sums, since, window = {}, done, time.monotonic()
        if history:
            history.close()

    def _stream(self, steps: range) -> Iterable[tuple[int, Batch]]:
        return zip(steps, ahead(self.batches.__getitem__, steps, self.workers), strict=True)

    def _step(self, step: int, steps: int, batch: Batch) -> dict[str, Tensor]:
        torch.manual_seed(derived(self.config.seed, STEP, step, self.fabric.global_rank))
        factor = rate_factor(step, steps, self.config.optimiser.warmup)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        parts: dict[str, Tensor] = self.objective(*batch.to(self.fabric.device))
        self.fabric.backward(torch.stack(list(parts.values())).sum())
        if self.config.optimiser.clip is not None:
            self.fabric.clip_gradients(
                self.objective, self.stepper, max_norm=self.config.optimiser.clip, error_if_nonfinite=False
            )
        self.stepper.step()
        self.stepper.zero_grad(set_to_none=True)
        if self.average:
            self.average.update(step + 1)
        return {name: part.detach() for name, part in parts.items()}

    def _means(self, sums: dict[str, Tensor], count: int) -> dict[str, float]:
        """Means over the last steps and all devices. Raises ConfigInvalid where learning has diverged."""
        means = {name: float(torch.as_tensor(self.fabric.all_reduce(total / count))) for name, total in sums.items()}
        if not all(math.isfinite(value) for value in means.values()):
            raise ConfigInvalid(
                f"learning diverged: the loss is no number any more ({means}).",
                where=str(self.out),
                hint="Lower optimiser.rate, or set hardware.precision to 32-true; then train with --restart.",
            )
        return means

    def _evaluate(self, step: int) -> dict[str, float]:
        """Scores the calibration split, and keeps the weights if they are the best so far."""
        if not self.calibration:
            return {}
        scored = score(self.candidate, self.calibration, self.loader, self.fabric.device, batch=self.config.batch)
        found = figures(scored, self.network.classes, self.good_class)
        by = criterion(found, self.record.task)
        # Equal is better: the later weights are averaged over more.
        if by is not None and (self.best is None or self.best.value is None or by[1] >= self.best.value):
            self.best = Best(step=step, criterion=by[0], value=by[1])
            save_tensors(self.out / BEST, {"weights": self.candidate.state_dict()})
        return found

    def _save(self, step: int) -> None:
        """Writes all that is needed to go on from `step`."""
        if not self.fabric.is_global_zero:
            return
        values: dict[str, Any] = {
            "step": step,
            "network": self.network.state_dict(),
            "average": self.average.network.state_dict() if self.average else None,
            "optimizer": self.optimizer.state_dict(),
            "precision": self.precision.state_dict(),
            "best": self.best.model_dump() if self.best else None,
            "found": self.found,
            "spent": [self._wall(), self.spent[1] + cpu_clock() - self.clock[1]],
        }
        save_tensors(self.out / CHECKPOINT, values)

    def _resume(self) -> int:
        """Takes up the checkpoint, if there is one; returns how many steps are done."""
        if not self.fabric.broadcast((self.out / CHECKPOINT).is_file()):
            return 0
        values = load_tensors(self.out / CHECKPOINT)
        self.network.load_state_dict(values["network"])
        if self.average:
            self.average.network.load_state_dict(values["average"])
        self.optimizer.load_state_dict(values["optimizer"])
        self.precision.load_state_dict(values["precision"])
        self.best = Best(**values["best"]) if values["best"] else None
        self.found = values["found"]
        self.spent = (values["spent"][0], values["spent"][1])
        return int(values["step"])

    def _schedule(self) -> Schedule:
        """How many steps, and where to evaluate: from what was asked, or from the data; the shortest counts."""
        config, per_pass = self.config, len(self.train) / self.config.batch
        limits = [config.steps] if config.steps else []
        if config.epochs:
            limits.append(max(1, round(config.epochs * per_pass)))
        speed = None
        evaluations = config.evaluations
        if config.budget:
            speed, evaluation = self._rehearse(config.budget)
            left = config.budget - (time.monotonic() - self.clock[0])
            affordable = int(EVALUATION_SHARE * left / max(evaluation, 1e-6)) - 1
            # One alone would compare nothing, and cost as much as the scores at the end.
            evaluations = min(evaluations, affordable) if affordable > 1 else 0
            # One more for the scores at the end, and 3 % for checkpoints and other users of the machine.
            limits.append(max(LOG_EVERY, int((0.97 * left - (evaluations + 1) * evaluation) / speed)))
        if not limits:
            limits.append(min(max(round(DEFAULT_PASSES * per_pass), DEFAULT_STEPS[0]), DEFAULT_STEPS[1]))
        steps = min(limits)
        evaluations = min(evaluations, steps)
        at = [round(steps * number / evaluations) for number in range(1, evaluations + 1)]
        return Schedule(steps=steps, evaluate_at=at, seconds_per_step=speed)

    def _rehearse(self, budget: float) -> tuple[float, float]:
        """Seconds a step and seconds an evaluation, measured on steps that are then undone."""
        before = copy.deepcopy(self.network.state_dict())
        scaler = copy.deepcopy(self.precision.state_dict())
        average = copy.deepcopy(self.average.network.state_dict()) if self.average else None
        limit = min(REHEARSAL, budget / 20)
        counted, began = 0, 0.0
        for step, batch in self._stream(range(10_000)):
            parts = self._step(step, 10_000, batch)
            if not math.isfinite(float(sum(parts.values()))):  # waits for the device
                break
            if step == 1:  # the first steps make room in memory and choose kernels
                counted, began = step, time.monotonic()
            enough = self.fabric.broadcast(step >= 4 and time.monotonic() - began > limit)
            if enough:
                counted = step - counted
                break
        speed = (time.monotonic() - began) / max(1, counted)
        some = self.calibration[: 4 * self.config.batch]
        began = time.monotonic()
        if some:
            score(self.candidate, some, self.loader, self.fabric.device, batch=self.config.batch)
        evaluation = (time.monotonic() - began) * len(self.calibration) / max(1, len(some))
        self.network.load_state_dict(before)
        self.precision.load_state_dict(scaler)
        if self.average and average is not None:
            self.average.network.load_state_dict(average)
        self.optimizer.state.clear()
        return speed, evaluation

    def _wall(self) -> float:
        return self.spent[0] + time.monotonic() - self.clock[0]

    def _amend(self, **changes: Any) -> None:
        """Writes something into run.json. Times in it are those before this start: the end adds this one's."""
        self.record = self.record.model_copy(
            update={**changes, "wall_seconds": self.spent[0], "cpu_seconds": self.spent[1]}
        )
        if self.fabric.is_global_zero:
            save_record(self.out, self.record)
