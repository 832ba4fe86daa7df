"""The whole test suite, in two processes side by side: the tests that need no server or start their own, and those that
share one stack. Both cores are busy: a third process made the others slower, and the browser too slow for its test.

A shell's background job would ignore Ctrl-C, and hand that on to all that it starts; hence this rather than `&`.
"""

import os
import subprocess
import sys
import tempfile

from city.settings import settings
from city.stack.servers import python

PYTEST = [sys.executable, "-m", "coverage", "run", "-m", "pytest", "--durations=10"]

if __name__ == "__main__":
    # Both halves, and the dozens of processes that their tests start, share what one of them has compiled.
    # The halves have the cores between them: threads of a library that computes would spin, waiting for one another.
    environment = os.environ | python(settings()) | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with tempfile.TemporaryFile("w+") as output:
        command = [*PYTEST, "-m", "not integration or own_servers", "-p", "no:cacheprovider"]
        others = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        try:
            code = subprocess.run([*PYTEST, "-m", "integration and not own_servers"], env=environment).returncode
            code = others.wait() or code
        finally:
            others.terminate()
            others.wait()
            output.seek(0)
            print(output.read())
    sys.exit(code)
