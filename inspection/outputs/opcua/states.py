"""The state machine of OPC 40100-1 as values: which transitions there are, which methods may be called when, and which
state follows from what the line does. Nothing here knows of OPC UA's wire or of threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from inspection.control import LineState


class Vision(StrEnum):
    """Where the vision system stands. The last four are the states inside `Operational`, by their own names."""

    PREOPERATIONAL = "Preoperational"
    HALTED = "Halted"
    ERROR = "Error"
    INITIALIZED = "Initialized"
    READY = "Ready"
    SINGLE = "SingleExecution"
    CONTINUOUS = "ContinuousExecution"

    @property
    def operational(self) -> bool:
        """Whether it is one of the states inside `Operational`."""
        return self in OPERATIONAL


OPERATIONAL = frozenset({Vision.INITIALIZED, Vision.READY, Vision.SINGLE, Vision.CONTINUOUS})
EXECUTING = frozenset({Vision.SINGLE, Vision.CONTINUOUS})

# When a method may be called; one that is not named here may be called always. These are the causes of the companion
# specification's transitions, and one thing more: a recipe may also be prepared while parts are judged, which is how a
# line changes over without a stop.
ALLOWED: dict[str, frozenset[Vision]] = {
    "SelectModeAutomatic": frozenset({Vision.PREOPERATIONAL}),
    "Halt": frozenset(Vision) - {Vision.HALTED},
    "Reset": frozenset(Vision) - {Vision.PREOPERATIONAL},
    "PrepareRecipe": OPERATIONAL,
    "PrepareProduct": OPERATIONAL,
    "UnprepareRecipe": frozenset({Vision.READY}),
    "UnprepareProduct": frozenset({Vision.READY}),
    "StartSingleJob": frozenset({Vision.READY}),
    "StartContinuous": frozenset({Vision.READY}),
    "Stop": EXECUTING,
    "Abort": EXECUTING,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Transition:
    """One step of the machine; `name` is that of the transition's node in the companion specification."""

    name: str
    source: Vision
    target: Vision

    @property
    def inside(self) -> bool:
        """Whether it is a transition of the automatic mode's own machine."""
        return self.source.operational and self.target.operational

    @property
    def source_name(self) -> str:
        """`FromState` of the event: outside the automatic mode all its states are `Operational`."""
        return self.source if self.inside or not self.source.operational else "Operational"

    @property
    def target_name(self) -> str:
        """`ToState` of the event."""
        entered = self.source is Vision.PREOPERATIONAL and self.target is Vision.INITIALIZED
        return self.target if self.inside or entered or not self.target.operational else "Operational"


def transition(source: Vision, target: Vision, cause: str | None = None) -> Transition:
    """The transition between two states, by a method (`cause`) or by the line itself.

    Raises:
        KeyError: the companion specification has no such transition.
    """
    kinds = {
        "PrepareRecipe": "Recipe",
        "PrepareProduct": "Product",
        "UnprepareRecipe": "Recipe",
        "UnprepareProduct": "Product",
        "Stop": "Stop",
        "Abort": "Abort",
        None: "Auto",
    }
    start = "Operational" if source.operational and not target.operational else source.value
    # From Error the specification returns to Operational as a whole; the automatic mode then begins at Initialized.
    end = "Operational" if source is Vision.ERROR and target.operational else target.value
    name = f"{start}To{end}{kinds.get(cause, '')}"
    if name not in NAMES:
        raise KeyError(name)
    return Transition(name=name, source=source, target=target)


NAMES = frozenset(
    {
        "PreoperationalToHalted",
        "PreoperationalToHaltedAuto",
        "PreoperationalToErrorAuto",
        "PreoperationalToInitialized",
        "PreoperationalToInitializedAuto",
        "HaltedToPreoperational",
        "HaltedToPreoperationalAuto",
        "ErrorToPreoperational",
        "ErrorToPreoperationalAuto",
        "ErrorToHalted",
        "ErrorToHaltedAuto",
        "ErrorToOperationalAuto",
        "OperationalToPreoperational",
        "OperationalToPreoperationalAuto",
        "OperationalToHalted",
        "OperationalToHaltedAuto",
        "OperationalToErrorAuto",
        "InitializedToReadyRecipe",
        "InitializedToReadyProduct",
        "InitializedToReadyAuto",
        "ReadyToInitializedRecipe",
        "ReadyToInitializedProduct",
        "ReadyToInitializedAuto",
        "ReadyToSingleExecution",
        "ReadyToContinuousExecution",
        "ReadyToContinuousExecutionAuto",
        "SingleExecutionToReadyStop",
        "SingleExecutionToReadyAbort",
        "SingleExecutionToReadyAuto",
        "ContinuousExecutionToReadyStop",
        "ContinuousExecutionToReadyAbort",
        "ContinuousExecutionToReadyAuto",
    }
)


def follow(state: Vision, line: LineState, *, prepared: bool, job_open: bool) -> Vision | None:
    """The next state that the line itself brings about; None: it stays. Ask again until it stays.

    Args:
        prepared: a recipe is loaded, and no client has taken it back.
        job_open: a single job that this server started has no result yet.
    """
    if line is LineState.CLOSED:
        return None if state is Vision.HALTED else Vision.HALTED
    if line is LineState.FAILED:
        # There is no way from Halted to Error: who resets a halted system that is broken gets to Error from there.
        return None if state in (Vision.ERROR, Vision.HALTED) else Vision.ERROR
    running = line is LineState.RUNNING
    loaded = prepared and line is not LineState.STARTING
    match state:
        case Vision.ERROR:
            return Vision.INITIALIZED if running else Vision.PREOPERATIONAL
        case Vision.HALTED:
            return Vision.PREOPERATIONAL if running else None
        case Vision.PREOPERATIONAL:
            return Vision.INITIALIZED if running else None
        case Vision.INITIALIZED:
            return Vision.READY if loaded or running else None
        case Vision.READY:
            if running:
                return Vision.CONTINUOUS
            return None if loaded else Vision.INITIALIZED
        case Vision.SINGLE:
            return None if job_open or running or line is LineState.DRAINING else Vision.READY
        case Vision.CONTINUOUS:
            return None if running or line is LineState.DRAINING else Vision.READY
