"""One call of a sink: what it is for, and when it must be over."""

from __future__ import annotations

from dataclasses import dataclass

from inspection.outputs.sink import Message

AT_LEAST = 0.05  # seconds that a call gets at least: to break off a connection and make it anew takes as long


@dataclass(slots=True)
class Try:
    """Deliver `message`, or open the sink where there is none.

    Attributes:
        began, ends: monotonic seconds; a call that takes longer hangs.
        stored: the message is (still) in the spool. pushed_out: it was, until that was full.
        counted: the message was counted late meanwhile.
        hurried: a verdict waits for it to end.
    """

    message: Message | None
    began: float
    ends: float
    stored: bool = False
    pushed_out: bool = False
    counted: bool = False
    hurried: bool = False

    @property
    def from_memory(self) -> bool:
        """Whether the message comes back to memory when the call fails."""
        return self.message is not None and not self.stored and not self.pushed_out

    @property
    def may_be_hurried(self) -> bool:
        """Whether it delivers what no gate waits for: an alarm or a state."""
        return self.message is not None and self.message.deadline is None

    def hurry(self, deadline: float, now: float) -> None:
        """A verdict waits behind it: from now on the call may take half of the time that the verdict has left, so that
        the other half is there for the verdict itself."""
        self.hurried = True
        self.ends = min(self.ends, now + max((deadline - now) / 2, AT_LEAST))
