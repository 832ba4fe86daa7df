"""The whole test suite, in three processes side by side, each of which takes the next file when it is free (see
tests/lanes.py). Two run the tests that need servers, each with a stack of its own: most of that time is waiting. The
third runs those that need none, and computes in what the others leave of the cores, so that these are never late.

A shell's background job would ignore Ctrl-C, and hand that on to all that it starts; hence this rather than `&`.
"""

import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack

from city.settings import settings
from city.stack.servers import python
from tests.lanes import OPTIONS, ORDERS

PYTEST = [sys.executable, "-m", "coverage", "run", "-m", "pytest", *OPTIONS]
YIELDS = {"fast": ["nice", "-n", "5"]}

if __name__ == "__main__":
    # All lanes, and the dozens of processes that their tests start, share what one of them has compiled.
    # They have the cores between them: threads of a library that computes would spin, waiting for one another.
    environment = os.environ | python(settings()) | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with ExitStack() as stack:
        taken = stack.enter_context(tempfile.TemporaryDirectory())
        first, *others = (
            (lane, [*YIELDS.get(lane, []), *PYTEST, f"--lane={lane}", f"--taken={taken}"]) for lane in ORDERS
        )
        running = []
        for lane, command in others:
            output = stack.enter_context(tempfile.TemporaryFile("w+"))
            process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
            running.append((lane, process, output))
        try:
            code = subprocess.run(first[1], env=environment).returncode
            for _, process, _ in running:
                code = process.wait() or code
        finally:
            for _, process, _ in running:
                process.terminate()
            for lane, process, output in running:
                process.wait()
                output.seek(0)
                print(f"----- {lane} -----\n{output.read()}")
    sys.exit(code)
