import subprocess
import sys

import pytest

_FRAGMENTS = """
import ctypes, psutil
from city.memory import release_free_memory
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
blocks = [libc.malloc(4096) for _ in range(20_000)]
for block in blocks:
    ctypes.memset(block, 1, 4096)
for n, block in enumerate(blocks):
    if n % 100:  # those that stay keep the freed pages between them
        libc.free(ctypes.c_void_p(block))
rss = psutil.Process().memory_info().rss
release_free_memory()
print((rss - psutil.Process().memory_info().rss) // 1_000_000)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's heaps")
def test_freed_pages_between_blocks_that_stay_go_back_to_the_system() -> None:
    done = subprocess.run([sys.executable, "-c", _FRAGMENTS], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 40
