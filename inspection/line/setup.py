"""A recipe that is loaded and warm: the plan that the tracker follows, and what is needed to carry it out."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from inspection.cameras.options import AnyCamera
from inspection.control import RecipeInfo
from inspection.errors import ConfigInvalid, InspectionError
from inspection.inspector import Inspector
from inspection.line.crew import failed
from inspection.line.plan import Closed, Job, Plan, Whole
from inspection.machine import usable_cores
from inspection.modelfile import file_hash
from inspection.parts import PartResult, ViewResult
from inspection.pixels import Pixels
from inspection.recipe.joining import join
from inspection.recipe.load import Loaded
from inspection.recipe.views import ViewJudge
from inspection.results import Inspection


class Models:
    """Model files that are loaded, each once, however many views and recipes use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loaded: dict[tuple[str, str, int | None], Inspector] = {}

    def get(self, path: Path, provider: str, threads: int | None) -> Inspector:
        """The file, loaded and self-tested. Raises what `Inspector` raises."""
        try:
            key = (file_hash(path), provider, threads)
        except OSError:
            return Inspector(path, provider=provider, threads=threads)  # says what is wrong with it
        with self._lock:
            if key not in self._loaded:
                self._loaded[key] = Inspector(path, provider=provider, threads=threads)
            return self._loaded[key]

    def keep(self, setups: Sequence[Setup]) -> None:
        """Lets go of what none of these needs."""
        needed = {one.model_hash for setup in setups for one in setup.inspectors.values()}
        with self._lock:
            self._loaded = {key: one for key, one in self._loaded.items() if key[0] in needed}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Setup(Plan):
    """One recipe, ready to judge by.

    Attributes:
        judges: what the recipe says of each view. inspectors: the model of each view, with its tiling and thresholds.
        workers, batch: as the recipe says, or as this machine has it.
    """

    info: RecipeInfo
    loaded: Loaded
    judges: Mapping[str, ViewJudge]
    inspectors: Mapping[str, Inspector]
    workers: int
    batch: int
    hang: float

    @property
    def cameras(self) -> dict[str, AnyCamera]:
        """What the recipe says of each view's camera."""
        return {name: view.camera for name, view in self.loaded.recipe.views.items()}

    def judge(self, jobs: Sequence[Job]) -> list[Inspection]:
        """Judges jobs of one model, in one network run; what cannot be judged is ERROR, with its reason."""
        found: dict[int, Inspection] = {}
        items: list[tuple[str, Pixels]] = []
        for place, job in enumerate(jobs):
            try:
                items.append(self.judges[job.view].cut(job.frame)[job.region])
            except InspectionError as error:  # the frame does not fit the recipe's regions
                found[place] = failed(job, error)
        judged = iter(self.inspectors[jobs[0].view].judge(items))
        return [found[place] if place in found else next(judged) for place in range(len(jobs))]

    def conclude(self, whole: Whole) -> ViewResult:
        """The view's result from those of its regions."""
        return self.judges[whole.view].conclude(whole.frame, whole.inspections)

    def result(self, closed: Closed, now: float) -> PartResult:
        """The verdict on a part that is over, as everybody is told it."""
        joined, trigger = closed.joined, closed.trigger
        seconds = {"decided": round(now - trigger.at, 6)}
        if closed.last_frame is not None:
            seconds["last_frame"] = round(closed.last_frame - trigger.at, 6)
        return PartResult(
            trigger=trigger,
            verdict=joined.verdict,
            views=joined.views,
            decided=now,
            deadline=trigger.at + self.deadline,
            recipe=self.info.id,
            recipe_hash=self.info.hash or "",
            models=dict(self.loaded.models),
            kind=joined.kind,
            reason=joined.reason,
            code=joined.code,
            seconds=seconds,
        )


def set_up(loaded: Loaded, models: Models, info: RecipeInfo) -> Setup:
    """Loads and warms everything that the recipe needs.

    Raises:
        ConfigInvalid: it cannot be carried out on this machine. ModelInvalid, ProviderUnavailable, CertificateMismatch:
        a model. ImageUnreadable: a mask.
    """
    recipe = loaded.recipe
    work = recipe.work
    lead = max((output.lead for output in recipe.outputs), default=0.0)
    if lead >= recipe.deadline:
        raise ConfigInvalid(
            f"the outputs need {lead:g} s of the {recipe.deadline:g} s until the deadline: none is left to judge in.",
            where=f"{loaded.path}: outputs",
            hint="Shorten the output's `lead`, or give the part a later `deadline`.",
        )
    workers = work.workers or (usable_cores() if work.provider in ("auto", "cpu", "openvino") else 2)
    threads = work.threads or max(1, usable_cores() // workers)
    judges: dict[str, ViewJudge] = {}
    inspectors: dict[str, Inspector] = {}
    shared: dict[str, Inspector] = {}
    names: dict[str, str] = {}
    for name, view in recipe.views.items():
        model = models.get(view.model, work.provider, threads)
        if model.model_hash != loaded.models[name]:
            raise ConfigInvalid(
                "the model file has been changed since the recipe was loaded: verdicts would bear its old hash.",
                where=str(view.model),
                hint="Change over to the recipe, or start the line again; it then has another hash.",
            )
        judges[name] = ViewJudge(name, view, point=model.card.operating_point, spec=model.card.input)
        # Views of one model, tiling and thresholds are one inspector: their regions may share a network run.
        names[name] = f"{model.model_hash} {view.tiling} {judges[name].point}"
        if names[name] not in shared:
            shared[names[name]] = model.sharing(tiling=view.tiling, operating_point=judges[name].point)
        inspectors[name] = shared[names[name]]
    on_gpu = any(one.provider in ("cuda", "tensorrt") for one in inspectors.values())
    match = recipe.match
    if recipe.window <= 0:
        raise ConfigInvalid(
            f"`early` of {match.early:g} s leaves no time in which a frame can only be its trigger's, at a takt of "
            f"{recipe.takt:g} s.",
            where=loaded.where("match", "early"),
            hint="Shorten it, or let frames name their part (`match.by`).",
        )
    return Setup(
        regions={name: max(1, len(view.regions)) for name, view in recipe.views.items()},
        models=names,
        deadline=recipe.deadline,
        lead=lead,
        window=recipe.window,
        early=match.early,
        by=match.by,
        join=lambda views: join(views, recipe),
        info=info,
        loaded=loaded,
        judges=judges,
        inspectors=inspectors,
        workers=workers,
        batch=work.batch or (8 if on_gpu else 1),
        hang=work.hang or max(5.0, 10 * recipe.takt),
    )
