"""The types of number arrays in function signatures."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Labels = NDArray[Any]
"""Labels (n,): floats for a regression, and the integer positions of the classes for a classification."""
