"""Python runs this when it starts in an environment of `seldom_collecting`."""

import gc

gc.set_threshold(100_000, 50, 100)
