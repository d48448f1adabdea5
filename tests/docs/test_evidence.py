"""Each promise of GUARANTEES.md has tests, and each marker of a test names a promise."""

from __future__ import annotations

from tools import evidence


def test_each_promise_has_a_test_and_each_marker_names_a_promise() -> None:
    named = [name for name, _ in evidence.promises()]
    proved = {proof.promise for proof in evidence.proofs()}
    assert len(named) == len(set(named)) >= 60
    assert set(named) - proved == set(), "promises without a test"
    assert proved - set(named) == set(), "markers that name no promise"


def test_many_tests_are_named() -> None:
    proofs = evidence.proofs()
    assert len({(proof.file, proof.test) for proof in proofs}) >= 280
    assert sum(proof.is_long for proof in proofs) >= 15
