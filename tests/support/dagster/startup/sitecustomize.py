"""Python runs this when it starts in an environment of `tests.support.dagster.startup`."""

import gc
import os

gc.set_threshold(100_000, 50, 100)

if address := os.environ.get("PRELOADED_PYTHON"):
    import hand_over  # beside this file, whose folder is on PYTHONPATH

    hand_over.to_preloaded_python(address)
