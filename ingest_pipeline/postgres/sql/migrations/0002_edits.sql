-- Edits of large documents: rows of one document share the chunk rows that an edit only moves.

CREATE TYPE ingest_pipeline.chunk_range AS (
    saga uuid,
    first integer,
    last integer,
    ordinal_shift integer,
    offset_shift bigint
);
COMMENT ON TYPE ingest_pipeline.chunk_range IS
    'Chunk rows of a document that a saga wrote, from ordinal first to before last, and what to add to their places.';

ALTER TABLE ingest_pipeline.document ADD COLUMN ranges ingest_pipeline.chunk_range[], ADD COLUMN blocks bytea;
COMMENT ON COLUMN ingest_pipeline.document.ranges IS
    'Where the chunk rows of an edited document are, which shares those that the edit only moved with its earlier '
    'rows. Null: all of them are of its own saga. The view document_chunk has their places.';
COMMENT ON COLUMN ingest_pipeline.document.blocks IS
    'Lengths and hashes of parts of the text, so that an edit is cut only where it changed the text. Null: the '
    'document is small, its text has pages, or code of the user cuts it.';
CREATE INDEX document_edited ON ingest_pipeline.document (generation, key) WHERE ranges IS NOT NULL;

-- These have one branch for rows that share nothing, and one for rows with ranges, so that each can use the indices.
CREATE VIEW ingest_pipeline.document_chunk AS
    SELECT d.saga, d.key AS document, c.ordinal, c.id, c.start_offset, c.end_offset, c.text_hash, c.page, c.last_page,
        c.heading, c.columns
    FROM ingest_pipeline.document d JOIN ingest_pipeline.chunk c ON c.saga = d.saga AND c.document = d.key
    WHERE d.ranges IS NULL
    UNION ALL
    SELECT d.saga, d.key, c.ordinal + r.ordinal_shift, c.id, c.start_offset + r.offset_shift,
        c.end_offset + r.offset_shift, c.text_hash, c.page, c.last_page, c.heading, c.columns
    FROM ingest_pipeline.document d CROSS JOIN LATERAL unnest(d.ranges) AS r
    JOIN ingest_pipeline.chunk c
        ON c.saga = r.saga AND c.document = d.key AND c.ordinal >= r.first AND c.ordinal < r.last
    WHERE d.ranges IS NOT NULL;
COMMENT ON VIEW ingest_pipeline.document_chunk IS
    'The chunks of each row of a document, whichever saga wrote their rows, with their places in that document.';

CREATE FUNCTION ingest_pipeline.chunks_at(generation text, version bigint) RETURNS SETOF ingest_pipeline.document_chunk
LANGUAGE sql STABLE AS $$
    SELECT d.saga, d.key AS document, c.ordinal, c.id, c.start_offset, c.end_offset, c.text_hash, c.page, c.last_page,
        c.heading, c.columns
    FROM ingest_pipeline.document d JOIN ingest_pipeline.chunk c ON c.saga = d.saga AND c.document = d.key
    WHERE d.generation = $1 AND NOT d.removed AND d.published_version <= $2
      AND (d.superseded_version IS NULL OR d.superseded_version > $2) AND d.ranges IS NULL
    UNION ALL
    SELECT d.saga, d.key, c.ordinal + r.ordinal_shift, c.id, c.start_offset + r.offset_shift,
        c.end_offset + r.offset_shift, c.text_hash, c.page, c.last_page, c.heading, c.columns
    FROM ingest_pipeline.document d CROSS JOIN LATERAL unnest(d.ranges) AS r
    JOIN ingest_pipeline.chunk c
        ON c.saga = r.saga AND c.document = d.key AND c.ordinal >= r.first AND c.ordinal < r.last
    WHERE d.generation = $1 AND NOT d.removed AND d.published_version <= $2
      AND (d.superseded_version IS NULL OR d.superseded_version > $2) AND d.ranges IS NOT NULL
$$;
COMMENT ON FUNCTION ingest_pipeline.chunks_at(text, bigint) IS
    'The chunks of a generation that readers at a version see.';

CREATE OR REPLACE VIEW ingest_pipeline.current_chunk AS
    SELECT k.corpus, d.partition, d.saga, d.key AS document, c.ordinal, c.id, c.start_offset, c.end_offset,
        c.text_hash, c.page, c.last_page, c.heading, c.columns
    FROM ingest_pipeline.document d
    JOIN ingest_pipeline.generation k ON k.name = d.generation AND k.state = 'current'
    JOIN ingest_pipeline.chunk c ON c.saga = d.saga AND c.document = d.key
    WHERE d.published_version IS NOT NULL AND d.superseded_version IS NULL AND NOT d.removed AND d.ranges IS NULL
    UNION ALL
    SELECT k.corpus, d.partition, d.saga, d.key, c.ordinal + r.ordinal_shift, c.id, c.start_offset + r.offset_shift,
        c.end_offset + r.offset_shift, c.text_hash, c.page, c.last_page, c.heading, c.columns
    FROM ingest_pipeline.document d
    JOIN ingest_pipeline.generation k ON k.name = d.generation AND k.state = 'current'
    CROSS JOIN LATERAL unnest(d.ranges) AS r
    JOIN ingest_pipeline.chunk c
        ON c.saga = r.saga AND c.document = d.key AND c.ordinal >= r.first AND c.ordinal < r.last
    WHERE d.published_version IS NOT NULL AND d.superseded_version IS NULL AND NOT d.removed AND d.ranges IS NOT NULL;
