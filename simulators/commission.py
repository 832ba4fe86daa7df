"""Fills the reference tables of the simulated fleet: `python -m simulators.commission LAKE SEED`.

This is a process of its own, because only this step needs Polars and Delta. A simulator that keeps them loaded needs
twice the memory for as long as it runs.
"""

import subprocess
import sys
from pathlib import Path


def commission_fleet(lake: Path, seed: int) -> None:
    """Fills the fleet's tables that were never filled, in another process. Raises RuntimeError if that fails."""
    command = [sys.executable, "-m", "simulators.commission", str(lake), str(seed)]
    process = subprocess.run(command, capture_output=True, text=True)
    if process.returncode:
        lines = process.stderr.strip().splitlines()
        raise RuntimeError(f"the fleet's reference tables in {lake} cannot be filled: {lines[-1] if lines else ''}")


def fill_tables(lake: Path, seed: int) -> None:
    """Fills the reference tables of the equipment with the fleet of `seed`, in this process."""
    from city.lake.reference import commission
    from simulators.world.machines import fleet, machine_types

    machines = fleet(seed)
    commission(lake, "machine_types", machine_types())
    commission(lake, "machines", [machine.description() for machine in machines])
    commission(lake, "machine_sensors", [row for machine in machines for row in machine.ranges()])


if __name__ == "__main__":
    fill_tables(Path(sys.argv[1]), int(sys.argv[2]))
