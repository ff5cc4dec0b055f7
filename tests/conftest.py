"""All processes of a test run keep compiled programs in one folder: what one has compiled, no other compiles again.

Processes that the tests start inherit the variables, and so do the workers of these. Set before JAX is imported.
"""

import os
from pathlib import Path

CACHE = Path(__file__).parents[1] / ".pytest_cache" / "xla"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
