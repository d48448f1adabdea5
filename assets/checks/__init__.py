"""Asset checks: what Dagster shows of the health of a corpus.

`corpus_checks` builds the checks of a whole corpus. `check_reports` evaluates those of one run, `gate_report` reports
what the gates found, and `check_results` builds the results of both. Begin with `corpus_checks`.
"""
