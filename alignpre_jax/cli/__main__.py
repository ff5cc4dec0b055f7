"""`python -m alignpre_jax.cli VERB` is `alignpre VERB`."""

import sys

from alignpre_jax.cli import main

sys.exit(main())
