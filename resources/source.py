"""The source of a corpus as a resource."""

from dagster import ConfigurableResource
from pydantic import Field


class DocumentSourceResource(ConfigurableResource[None]):
    """A local folder, or a prefix of a bucket."""

    url: str = Field(description="A path, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix.")
