"""The measurements: ``python -m bench.verify`` and so on, in the project's root."""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests")]  # the servers are those of the tests
