"""What a message costs on its way out: `python -m benchmarks.outputs [--broker PORT]`.

Prints microseconds per message: of the thread that hands it over (`put`), and in all, through a sink that takes
everything, in memory and through the spool; with a broker on 127.0.0.1 also of MQTT at each QoS and of Sparkplug B.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from inspection.outputs.courier import Courier
from inspection.outputs.open import open_sink
from inspection.outputs.options import MqttOptions, OutputOptions, Sparkplug
from inspection.outputs.sink import Message, Sink

BODY = {
    "number": 1,
    "part": "P0000001",
    "lot": "L7",
    "product": "bolt",
    "verdict": "NG",
    "triggered": 1.7e9,
    "views": [
        {"view": f"view{n}", "verdict": "NG", "score": 0.5, "defects": [{"kind": "scratch", "box": [1, 2, 3, 4]}]}
        for n in range(6)
    ],
}


class Taker:
    """Takes everything at once."""

    def open(self) -> None:
        """Nothing to do."""

    def deliver(self, message: Message) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""


class Still:
    """The little that Sparkplug asks a line: one that runs no recipe."""

    name = "bench"
    recipe = None

    class state:  # noqa: N801
        value = "running"

    def counters(self) -> dict[str, dict[str, int]]:
        """None."""
        return {}


def measure(name: str, options: OutputOptions, sink: Sink, spool: Path | None, count: int) -> None:
    """Prints one row."""
    courier = Courier(options, sink, name="bench", spool=spool, alarm=print)
    courier.start()
    while courier.state != "connected":
        time.sleep(0.01)
    messages = [Message(kind="result", sequence=n, wall=time.time(), body=BODY) for n in range(count)]
    start = time.perf_counter()
    for message in messages:
        courier.put(message)
    put = time.perf_counter() - start
    while courier.counters()["delivered"] < count:
        time.sleep(0.001)
    whole = time.perf_counter() - start
    courier.close(1.0)
    print(f"{name:28} put {put / count * 1e6:7.1f} us    in all {whole / count * 1e6:7.1f} us")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--broker", type=int, help="port of an MQTT broker on 127.0.0.1")
    parser.add_argument("--count", type=int, default=3000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        plain = OutputOptions(queue=given.count)
        measure("memory", plain, Taker(), None, given.count)
        measure("spool", plain, Taker(), Path(folder) / "spool", given.count)
        if given.broker is not None:
            mqtt: dict[str, Any] = {"kind": "mqtt", "host": "127.0.0.1", "port": given.broker, "queue": given.count}
            ways = {f"spool, MQTT QoS {qos}": MqttOptions(**mqtt, qos=qos) for qos in (0, 1, 2)}
            ids = Sparkplug(group="bench", node="bench", device="bench")
            for way, options in {**ways, "spool, Sparkplug B": MqttOptions(**mqtt, sparkplug=ids)}.items():
                sink = open_sink(options, control=Still(), line="bench", alarm=print)  # type: ignore[arg-type]
                measure(way, options, sink, Path(folder) / way, given.count)


if __name__ == "__main__":
    main()
