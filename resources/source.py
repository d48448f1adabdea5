"""Where the documents are."""

from dagster import ConfigurableResource
from pydantic import Field

from ingest_pipeline.sources.object_store import ObjectSource


class DocumentSourceResource(ConfigurableResource[None]):
    """A local folder, or a prefix of a bucket."""

    url: str = Field(description="A path, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix.")

    def open(self) -> ObjectSource:
        """The source, ready to list and read.

        Raises:
            ConfigurationError: The url is malformed or the folder does not exist.
        """
        return ObjectSource(self.url)
