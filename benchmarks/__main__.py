"""All benchmarks, one after another; each prints the table that the README or docs/ quotes.

python -m benchmarks [--data FOLDER] [--quick]

Speed: `engine` (the runtime against bare onnxruntime), `http`, `allocator`, `precision` (of training). The line:
`scheduler`, `record`, `recording`, `cameras`, `outputs`, `modbus`, `opcua`, `faults`. Quality: `elpv` (three trainings
of 20 minutes). With FOLDER, which holds `kolektor_sdd/`, `mvtec_screw/` and `msd100/`, also `kolektor`, `certificate`
and `phones` (half an hour).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path


def main() -> None:
    """Runs each as a process of its own, so that one cannot slow another by what it left in memory."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, default=None, help="folder of public data sets")
    arguments.add_argument("--quick", action="store_true", help="speed alone, no training")
    given = arguments.parse_args()
    line = ["scheduler", "record", "recording", "cameras", "outputs", "modbus", "opcua", "faults"]
    plan = [["engine"], ["http"], ["allocator"], ["precision"], *([name] for name in line)]
    if not given.quick:
        plan.append(["elpv"])
        if given.data is not None:
            plan.append(["kolektor", str(given.data / "kolektor_sdd")])
            plan.append(["certificate", "elpv", str(given.data / "kolektor_sdd"), str(given.data / "mvtec_screw")])
            plan.append(["phones", str(given.data / "msd100")])
    for name, *rest in plan:
        print(f"\n== {name}", flush=True)
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *rest], check=True)


if __name__ == "__main__":
    main()
