"""The whole test suite, in two processes side by side: the tests that need no server, and those that share one stack.

A shell's background job would ignore Ctrl-C, and hand that on to all that it starts; hence this rather than `&`.
"""

import subprocess
import sys
import tempfile

PYTEST = [sys.executable, "-m", "coverage", "run", "-m", "pytest", "--durations=10"]

if __name__ == "__main__":
    with tempfile.TemporaryFile("w+") as output:
        command = [*PYTEST, "-m", "not integration", "-p", "no:cacheprovider"]
        others = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            code = subprocess.run([*PYTEST, "-m", "integration"]).returncode
            code = others.wait() or code
        finally:
            others.terminate()
            others.wait()
            output.seek(0)
            print(output.read())
    sys.exit(code)
