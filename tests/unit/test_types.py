"""The values of the pipeline."""

from ingest_pipeline.types import Usage


def test_usages_add_up_counter_by_counter() -> None:
    one, other = Usage(1, 2, 3, 4, 5, 0.5), Usage(10, 20, 30, 40, 50, 1.0)
    assert one + other == Usage(11, 22, 33, 44, 55, 1.5)
    assert sum([one, other], Usage()) == other + one
    assert Usage() + one == one
