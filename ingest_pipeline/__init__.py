"""Files in object storage become a searchable LanceDB table and a Postgres catalog that never disagree."""
