"""Gates: what a publication must pass before readers see it, judged over the prepared, unpublished version.

A golden set of questions, expectations of the prepared chunks, and gates of the user. `judge` decides about a
publication or a switch, and `evaluate` scores a golden set at any version. What did not pass is kept by `saga.blocked`.
May import `search`, `preparation` and what is below them; `ingestion` calls it. Begin with `judge`.
"""
