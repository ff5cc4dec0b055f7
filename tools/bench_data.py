"""Measures the data engine beside the raw libraries: detection, duplicates, rows, mixtures, loading.

    python tools/bench_data.py [--quick] [--json FILE]

Levanter's mixing stands beside ours if LEVANTER_PYTHON names a Python that has marin-levanter.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tools.data_benches import documents, duplicates, main, mixture, rows

if __name__ == "__main__":
    assert __doc__
    main([documents.measure, duplicates.measure, rows.measure, mixture.measure], __doc__.splitlines()[0])
