"""Fills the reference tables of the simulated fleet. `python -m simulators.commission LAKE SEED`.

A process of its own, because it needs Polars and Delta once, and a simulator that keeps them in memory needs twice as
much for as long as it runs.
"""

import subprocess
import sys
from pathlib import Path


def commission_fleet(lake: Path, seed: int) -> None:
    """Fills the tables that were never filled. Raises RuntimeError with what went wrong."""
    command = [sys.executable, "-m", "simulators.commission", str(lake), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise RuntimeError(f"the fleet's reference tables in {lake} cannot be filled: {lines[-1] if lines else ''}")


def main(lake: Path, seed: int) -> None:
    from city.lake.reference import commission
    from simulators.equipment import fleet

    machines = fleet(seed)
    commission(lake, "machines", [machine.description() for machine in machines])
    commission(lake, "machine_sensors", [row for machine in machines for row in machine.ranges()])


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
