"""The scripted line keeps the contract of `Control`: tests of the doors rest on it."""

import pytest

from inspection.control import Control, LineState, NotReady
from inspection.errors import ConfigInvalid, ModelInvalid
from inspection.outputs.sink import Message
from inspection.results import Verdict
from tests.outputs.scripted_line import ScriptedLine


class Kept:
    def __init__(self) -> None:
        self.messages: list[Message] = []

    def open(self) -> None: ...

    def deliver(self, message: Message) -> None:
        self.messages.append(message)

    def close(self) -> None: ...


def test_a_trigger_gets_its_verdict_and_every_message_arrives_in_order() -> None:
    with ScriptedLine() as line:
        control: Control = line
        kept = Kept()
        line.attach(kept)
        with pytest.raises(NotReady):
            control.trigger()
        control.start()
        numbers = [control.trigger(part=f"p{n}-NG" if n % 2 else f"p{n}") for n in range(20)]
        control.stop()
        results = [control.wait(number, 20) for number in numbers]
        assert [r.verdict for r in results if r] == [Verdict.OK, Verdict.NG] * 10
        line.until(LineState.STOPPED)
        assert control.counters()["line"] == {
            "triggers": 20, "OK": 10, "NG": 10, "REVIEW": 0, "ERROR": 0, "in_flight": 0
        }  # fmt: skip
    sequences = [message.sequence for message in kept.messages]
    assert sequences == sorted(sequences)
    assert [m.body["number"] for m in kept.messages if m.kind == "result"] == numbers


def test_it_changes_over_fails_and_recovers() -> None:
    with ScriptedLine(broken=["nut"], running=True) as line:
        line.change_over("washer", wait=True)
        assert line.recipe is not None
        assert (line.recipe.id, bool(line.recipe.hash)) == ("washer", True)
        for wrong in ("nut", "screw"):
            with pytest.raises(ConfigInvalid):
                line.change_over(wrong)
        line.fail(ModelInvalid("the model does not load."))
        assert line.state is LineState.FAILED
        with pytest.raises(NotReady):
            line.start()
        line.reset()
        line.until(LineState.RUNNING)
        assert line.problem is None
