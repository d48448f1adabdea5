"""All names of a corpus in Dagster: the keys of its assets, and the names of its jobs, steps, sensors and resources.

They begin with the corpus' `key_prefix`, so that corpora of one name can be side by side in a code location, or in code
locations that share an instance of Dagster.
"""

from __future__ import annotations

from dataclasses import dataclass

from dagster import AssetKey

from ingest_pipeline.config.options.corpus_options import CorpusOptions

ASSETS = ("chunks", "embeddings", "metadata")
"""The three assets with partitions, in the order in which each is made from the one before."""
HEAD = "head"
"""The asset without partitions."""
# Neither the parts nor a corpus contain two underscores in a row, so different prefixes never make one name.
_SEPARATOR = "__"
_JOBS = ("ingest", "rollback", "reembed", "batch", "maintenance", "erase", "gate")


@dataclass(frozen=True, slots=True)
class DagsterNames:
    """The names of one corpus."""

    corpus: str
    prefix: tuple[str, ...] = ()
    """The parts that precede the name of the corpus in the keys of its assets."""

    @classmethod
    def of(cls, options: CorpusOptions) -> DagsterNames:
        """The names of a corpus with these options."""
        return cls(options.corpus, options.key_prefix_parts)

    def key(self, asset: str) -> AssetKey:
        """The key of one of the assets."""
        return AssetKey([*self.prefix, self.corpus, asset])

    def is_own(self, key: AssetKey) -> bool:
        """Whether the key is that of an asset of the corpus."""
        return key in {self.key(asset) for asset in (*ASSETS, HEAD)}

    def name(self, what: str) -> str:
        """The name of something that is no asset."""
        return f"{self.qualified}_{what}"

    @property
    def qualified(self) -> str:
        """The name of the corpus with its prefix, as one word."""
        return _SEPARATOR.join([*self.prefix, self.corpus])

    @property
    def step(self) -> str:
        """The step that ingests."""
        return self.name("ingest")

    @property
    def ingest_job(self) -> str:
        """The job that ingests."""
        return self.name("ingest_job")

    @property
    def reembed_job(self) -> str:
        """The job that re-embeds."""
        return self.name("reembed_job")

    @property
    def erase_job(self) -> str:
        """The job that erases documents."""
        return self.name("erase_job")

    @property
    def rollback_job(self) -> str:
        """The job that rolls back."""
        return self.name("rollback_job")

    @property
    def gate_job(self) -> str:
        """The job that releases or drops what did not pass its gates."""
        return self.name("gate_job")

    @property
    def jobs(self) -> set[str]:
        """The jobs whose runs register their process first."""
        return {self.name(f"{work}_job") for work in _JOBS}
