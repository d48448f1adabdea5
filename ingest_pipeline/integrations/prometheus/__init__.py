"""The figures of the catalog for Prometheus: how many documents, how far behind, what they cost.

`figures` reads them at each scrape, and `serve` answers the scrapes. Needs the extra `metrics`. Begin with `figures`.
"""
