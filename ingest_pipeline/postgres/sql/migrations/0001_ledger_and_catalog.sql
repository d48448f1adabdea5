-- The ledger (saga, staged_fragment, embedded_batch, failure) and the catalog (corpus, document, chunk).

CREATE TABLE ingest_pipeline.installation (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE ingest_pipeline.installation IS 'One row: the identity that LanceDB tables of this database carry.';
INSERT INTO ingest_pipeline.installation DEFAULT VALUES;

CREATE FUNCTION ingest_pipeline.this_database(
    OUT installation text, OUT system text, OUT timeline text, OUT number text, OUT folder text, OUT name text,
    OUT flushed bigint, OUT written bigint
) LANGUAGE plpgsql STABLE AS $$
BEGIN
    SELECT i.id::text INTO installation FROM ingest_pipeline.installation i;
    SELECT d.oid::text, d.datname INTO number, name FROM pg_database d WHERE d.datname = current_database();
    -- An embedded server is named after the folder of its data.
    folder := substring(current_setting('cluster_name', true) FROM '^ingest-.*');
    BEGIN
        SELECT c.system_identifier::text INTO system FROM pg_control_system() c;
    EXCEPTION WHEN OTHERS THEN NULL;
    END;
    BEGIN
        -- pg_control_checkpoint() would lag behind a promotion.
        timeline := left(pg_walfile_name(pg_current_wal_insert_lsn()), 8);
        flushed := pg_current_wal_flush_lsn() - '0/0';
        written := pg_current_wal_insert_lsn() - '0/0';
    EXCEPTION WHEN OTHERS THEN NULL;
    END;
END $$;

-- building: not yet visible to readers. current: the generation that readers see. retired: replaced or aborted, kept
-- for a week. dropped: its table and rows are deleted.
CREATE TYPE ingest_pipeline.generation_state AS ENUM ('building', 'current', 'retired', 'dropped');

CREATE TABLE ingest_pipeline.corpus (
    name text PRIMARY KEY CHECK (name ~ '^[a-z][a-z0-9_]{0,62}$'),
    access text,
    require_principals boolean NOT NULL DEFAULT false,
    columns jsonb,
    created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN ingest_pipeline.corpus.columns IS
    'Declaration of the user''s columns that is in force. Null: no ingest has recorded one.';
COMMENT ON COLUMN ingest_pipeline.corpus.access IS
    'Column with the principals that may find a document. Null: every search finds every document.';
COMMENT ON COLUMN ingest_pipeline.corpus.require_principals IS
    'True: a search without principals is an error. False: it finds nothing of a corpus with restricted access.';
COMMENT ON TABLE ingest_pipeline.corpus IS
    'A corpus by its name. Its documents are in generations, and readers see the current one.';

CREATE TABLE ingest_pipeline.generation (
    name text PRIMARY KEY,
    corpus text NOT NULL REFERENCES ingest_pipeline.corpus (name),
    state ingest_pipeline.generation_state NOT NULL DEFAULT 'current',
    state_since timestamptz NOT NULL DEFAULT now(),
    table_uri text NOT NULL UNIQUE,
    source text,
    partition_by text,
    embedding text,
    recipes jsonb NOT NULL DEFAULT '[]',
    head_version bigint NOT NULL,
    head_saga uuid NOT NULL,
    staged_manifest text,
    created_at timestamptz NOT NULL DEFAULT now(),
    CHECK (name = corpus OR name ~ ('^' || corpus || '-[0-9]+$'))
);
CREATE UNIQUE INDEX generation_current ON ingest_pipeline.generation (corpus) WHERE state = 'current';
CREATE UNIQUE INDEX generation_building ON ingest_pipeline.generation (corpus) WHERE state = 'building';
COMMENT ON TABLE ingest_pipeline.generation IS
    'A generation of a corpus: one LanceDB table and its head. The row is also the lock of a publication.';
COMMENT ON COLUMN ingest_pipeline.generation.name IS
    'Name of the LanceDB table, and the key of all rows of the generation.';
COMMENT ON COLUMN ingest_pipeline.generation.corpus IS 'Name of the corpus to which the generation belongs.';
COMMENT ON COLUMN ingest_pipeline.generation.recipes IS
    'Recipes with fingerprint, parts and start time, oldest first. The last one is in force.';
COMMENT ON COLUMN ingest_pipeline.generation.source IS
    'Prefix of the source. Null: the user manages the rows of the table.';

COMMENT ON COLUMN ingest_pipeline.generation.staged_manifest IS
    'Private name of the manifest of head. If there is such a file, it has yet to get the name that readers look for. '
    'Null: the version was visible at once.';

CREATE TYPE ingest_pipeline.saga_state AS ENUM
    ('preparing', 'prepared', 'blocked', 'published', 'completed', 'compensated', 'failed', 'abandoned', 'adopted');

CREATE TABLE ingest_pipeline.saga (
    id uuid PRIMARY KEY,
    generation text NOT NULL REFERENCES ingest_pipeline.generation (name) DEFERRABLE INITIALLY DEFERRED,
    kind text NOT NULL CHECK (kind IN ('create', 'ingest', 'transaction', 'restore', 'rollback', 'maintenance', 'batch', 'rebuild', 'erasure', 'other')),
    state ingest_pipeline.saga_state NOT NULL DEFAULT 'preparing',
    base_version bigint NOT NULL,
    published_version bigint,
    run_id text,
    writer text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    seen_at timestamptz NOT NULL DEFAULT now(),
    prepared_at timestamptz,
    ended_at timestamptz,
    reported_at timestamptz,
    requests integer NOT NULL DEFAULT 0,
    retries integer NOT NULL DEFAULT 0,
    tokens bigint NOT NULL DEFAULT 0,
    unusable_tokens bigint NOT NULL DEFAULT 0,
    embedded integer NOT NULL DEFAULT 0,
    embedded_characters bigint NOT NULL DEFAULT 0,
    api_seconds double precision NOT NULL DEFAULT 0,
    extension_tokens bigint NOT NULL DEFAULT 0,
    extension_requests integer NOT NULL DEFAULT 0,
    price numeric,
    currency text,
    price_as_of date,
    error text,
    target_version bigint,
    retired_by text CHECK (retired_by IN ('retention', 'erasure', 'rebuild')),
    UNIQUE (generation, published_version),
    CHECK ((state = 'published') = (published_version IS NOT NULL)),
    CHECK (published_version > base_version),
    CHECK ((kind = 'rollback') = (target_version IS NOT NULL)),
    CHECK (state <> 'completed' OR (kind = 'batch' AND prepared_at IS NULL))
);
COMMENT ON COLUMN ingest_pipeline.saga.kind IS
    'other: recorded only in the table, by another database or in a lost history.';
COMMENT ON COLUMN ingest_pipeline.saga.state IS
    'blocked: the publication did not pass its gates, and is kept prepared until it is released, dropped or overtaken. '
    'completed: the saga did its work and has nothing to publish. '
    'adopted: a rebuild of the catalog took over the publication of the saga.';
COMMENT ON COLUMN ingest_pipeline.saga.prepared_at IS 'Null: the saga was never prepared, so it made no version.';
COMMENT ON COLUMN ingest_pipeline.saga.price IS
    'Price of a million tokens, as configured when the saga began. Null: no price was configured.';
COMMENT ON COLUMN ingest_pipeline.saga.extension_tokens IS
    'Tokens that enrichers of the user reported. They count for the limits; extension_usage has what they cost.';
COMMENT ON COLUMN ingest_pipeline.saga.unusable_tokens IS
    'Tokens that were billed for answers without a usable vector.';
COMMENT ON COLUMN ingest_pipeline.saga.target_version IS
    'The version whose documents a rollback restores. Null: the saga is no rollback.';
COMMENT ON COLUMN ingest_pipeline.saga.retired_by IS
    'What removed the version of the saga, or rebuild: the table lacked it when the catalog was rebuilt. Null: the '
    'version is retained. The counts are in retired_publication.';
CREATE INDEX saga_retained ON ingest_pipeline.saga (generation, published_version) WHERE state = 'published' AND retired_by IS NULL;
-- Without seen_at, so that heartbeats change no index.
CREATE INDEX saga_unfinished ON ingest_pipeline.saga (generation) WHERE state IN ('preparing', 'prepared');
CREATE INDEX saga_blocked ON ingest_pipeline.saga (generation) WHERE state = 'blocked';
CREATE INDEX saga_unreported ON ingest_pipeline.saga (generation)
    WHERE state = 'published' AND kind IN ('ingest', 'rollback') AND reported_at IS NULL;
CREATE INDEX saga_erasure ON ingest_pipeline.saga (generation, published_version)
    WHERE state = 'published' AND kind = 'erasure';
CREATE INDEX saga_abandoned ON ingest_pipeline.saga (generation, ended_at) WHERE state = 'abandoned';
CREATE INDEX saga_writer ON ingest_pipeline.saga (writer);
CREATE INDEX saga_run ON ingest_pipeline.saga (run_id) WHERE run_id IS NOT NULL;

CREATE FUNCTION ingest_pipeline.check_saga_edge() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.state = NEW.state THEN
        RETURN NEW;
    END IF;
    IF (OLD.state, NEW.state) IN (
        ('preparing', 'prepared'), ('preparing', 'completed'), ('preparing', 'failed'), ('preparing', 'abandoned'),
        ('prepared', 'published'), ('prepared', 'compensated'), ('prepared', 'failed'), ('prepared', 'abandoned'),
        ('prepared', 'blocked'), ('blocked', 'prepared'), ('blocked', 'failed'), ('blocked', 'abandoned'))
    THEN
        RETURN NEW;
    END IF;
    IF NEW.state = 'adopted' AND OLD.state NOT IN ('published', 'completed') THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'saga % cannot move from % to %', OLD.id, OLD.state, NEW.state USING ERRCODE = 'check_violation';
END $$;
CREATE TRIGGER saga_edge BEFORE UPDATE ON ingest_pipeline.saga
    FOR EACH ROW EXECUTE FUNCTION ingest_pipeline.check_saga_edge();

CREATE FUNCTION ingest_pipeline.check_head_advances() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.table_uri = OLD.table_uri AND NEW.head_version < OLD.head_version THEN
        RAISE EXCEPTION 'head of generation % cannot move back from version % to %',
            OLD.name, OLD.head_version, NEW.head_version USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER generation_head BEFORE UPDATE ON ingest_pipeline.generation
    FOR EACH ROW EXECUTE FUNCTION ingest_pipeline.check_head_advances();

CREATE TABLE ingest_pipeline.retired_publication (
    saga uuid PRIMARY KEY REFERENCES ingest_pipeline.saga (id) ON DELETE CASCADE,
    documents integer NOT NULL,
    removed integer NOT NULL,
    chunks bigint NOT NULL,
    cached bigint NOT NULL,
    retired_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE ingest_pipeline.staged_fragment (
    saga uuid NOT NULL REFERENCES ingest_pipeline.saga (id) ON DELETE CASCADE,
    name text NOT NULL,
    row_count integer NOT NULL CHECK (row_count > 0),
    PRIMARY KEY (saga, name)
);

CREATE TABLE ingest_pipeline.embedded_batch (
    saga uuid NOT NULL REFERENCES ingest_pipeline.saga (id) ON DELETE CASCADE,
    ordinal integer NOT NULL,
    embedding text NOT NULL,
    text_hashes uuid[] NOT NULL,
    checksum bytea NOT NULL,
    vectors bytea,
    PRIMARY KEY (saga, ordinal)
);
COMMENT ON COLUMN ingest_pipeline.embedded_batch.ordinal IS
    'Number of the batch within the saga, ascending in the order of their COMMITs.';
COMMENT ON COLUMN ingest_pipeline.embedded_batch.text_hashes IS
    'Hashes of the texts whose vectors are in the file, in this order.';
COMMENT ON COLUMN ingest_pipeline.embedded_batch.checksum IS 'SHA-256 of the file.';
COMMENT ON COLUMN ingest_pipeline.embedded_batch.vectors IS
    'What the file would contain, if the store of the table did not take it. Null: there is a file.';
-- Floats hardly compress; the attempt costs more than it saves.
ALTER TABLE ingest_pipeline.embedded_batch ALTER COLUMN vectors SET STORAGE EXTERNAL;

CREATE TABLE ingest_pipeline.extension_result (
    corpus text NOT NULL,
    input_hash text NOT NULL,
    fingerprint text NOT NULL,
    extension text NOT NULL,
    content_hash text NOT NULL,
    text_hash uuid,
    result bytea NOT NULL,
    made_at timestamptz NOT NULL DEFAULT now(),
    used_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (corpus, extension, fingerprint, input_hash)
);
COMMENT ON COLUMN ingest_pipeline.extension_result.input_hash IS
    'SHA-256 of what the extension got: the bytes, the text with its columns, or a chunk with its heading.';
COMMENT ON COLUMN ingest_pipeline.extension_result.content_hash IS
    'SHA-256 of the bytes of the document, which tells whether a document at head still needs the result.';
COMMENT ON COLUMN ingest_pipeline.extension_result.text_hash IS
    'The text_hash of the chunk that the result is of, as it was last used. Null: the result is of a document.';
CREATE INDEX extension_result_content ON ingest_pipeline.extension_result (corpus, content_hash);

CREATE TABLE ingest_pipeline.extension_usage (
    saga uuid NOT NULL REFERENCES ingest_pipeline.saga (id) ON DELETE CASCADE,
    extension text NOT NULL,
    currency text,
    price_as_of date,
    tokens bigint NOT NULL,
    requests integer NOT NULL,
    amount numeric,
    CHECK ((currency IS NULL) = (amount IS NULL))
);
COMMENT ON COLUMN ingest_pipeline.extension_usage.currency IS
    'Null: the enricher reported no cost, and no price was configured.';
COMMENT ON COLUMN ingest_pipeline.extension_usage.price_as_of IS 'Null: the enricher reported the cost itself.';
CREATE UNIQUE INDEX extension_usage_price ON ingest_pipeline.extension_usage
    (saga, extension, coalesce(currency, ''), coalesce(price_as_of, '-infinity'));

CREATE TABLE ingest_pipeline.token_day (
    corpus text NOT NULL,
    day date NOT NULL,
    tokens bigint NOT NULL DEFAULT 0,
    extension_tokens bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (corpus, day)
);

CREATE TABLE ingest_pipeline.served_embedding (
    endpoint text NOT NULL,
    embedding text NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (endpoint, embedding)
);

CREATE TABLE ingest_pipeline.batch_job (
    saga uuid PRIMARY KEY REFERENCES ingest_pipeline.saga (id) ON DELETE CASCADE,
    generation text NOT NULL REFERENCES ingest_pipeline.generation (name) ON DELETE CASCADE,
    embedding text NOT NULL,
    keys text[] NOT NULL,
    text_hashes uuid[] NOT NULL,
    texts_a_request integer NOT NULL CHECK (texts_a_request > 0),
    characters bigint NOT NULL,
    state text NOT NULL DEFAULT 'submitting' CHECK (state IN ('submitting', 'submitted', 'collected', 'failed')),
    api_batch text,
    writer text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz,
    collected integer NOT NULL DEFAULT 0,
    error text,
    UNIQUE (generation, api_batch),
    CHECK ((state = 'submitting') <= (api_batch IS NULL))
);
CREATE INDEX batch_job_open ON ingest_pipeline.batch_job (generation) WHERE state IN ('submitting', 'submitted');
COMMENT ON COLUMN ingest_pipeline.batch_job.keys IS 'Keys of the documents that wait for the vectors.';

CREATE TABLE ingest_pipeline.document (
    generation text NOT NULL REFERENCES ingest_pipeline.generation (name),
    key text COLLATE "C" NOT NULL,
    saga uuid NOT NULL REFERENCES ingest_pipeline.saga (id),
    partition text NOT NULL,
    replaces uuid,
    removed boolean NOT NULL DEFAULT false,
    etag text,
    recipe text,
    size bigint,
    last_modified timestamptz,
    character_count bigint DEFAULT 0,
    tokens bigint DEFAULT 0,
    seconds double precision DEFAULT 0,
    chunk_count integer DEFAULT 0,
    embedded integer DEFAULT 0,
    cached integer DEFAULT 0,
    requests integer DEFAULT 0,
    retries integer DEFAULT 0,
    content_hash text,
    copy_of uuid,
    columns jsonb NOT NULL DEFAULT '{}',
    fragments bigint[] NOT NULL DEFAULT '{}',
    published_version bigint,
    superseded_version bigint,
    PRIMARY KEY (saga, key),
    CHECK (superseded_version > published_version),
    CHECK (published_version IS NULL OR num_nulls(character_count, tokens, seconds, chunk_count, embedded, cached,
        requests, retries) = 0)
) WITH (fillfactor = 30);
-- A row is inserted when its document is planned, completed when the document was read, and then published. All three
-- versions have room on one page. So Postgres logs only the columns that differ, which are next to each other, and only
-- the first and the last version get entries in indices. The counts are null until the document was read.
COMMENT ON COLUMN ingest_pipeline.document.key IS
    'Key of the object under the prefix, in byte order like the listings of object stores.';
COMMENT ON COLUMN ingest_pipeline.document.replaces IS
    'The saga of the latest row when this row was planned. Another latest row at publication is a conflict.';
COMMENT ON COLUMN ingest_pipeline.document.removed IS
    'True: the publication removed the document, and this row is its tombstone.';
COMMENT ON COLUMN ingest_pipeline.document.tokens IS
    'The share of the document, by characters, in the billed tokens of its requests.';
COMMENT ON COLUMN ingest_pipeline.document.requests IS
    'Requests with texts of the document. A request with several documents counts for each of them.';
COMMENT ON COLUMN ingest_pipeline.document.seconds IS 'Seconds from the first byte read to the last row staged.';
COMMENT ON COLUMN ingest_pipeline.document.copy_of IS
    'The saga of the row whose chunks a rollback or a change of columns copied. Null: the row is no copy.';
COMMENT ON COLUMN ingest_pipeline.document.columns IS
    'Values of the declared columns. Dates and times are ISO strings. A column without a value is absent.';
COMMENT ON COLUMN ingest_pipeline.document.fragments IS 'Ids of the Lance fragments that contain the rows.';
CREATE UNIQUE INDEX document_current ON ingest_pipeline.document (generation, key)
    WHERE published_version IS NOT NULL AND superseded_version IS NULL;
CREATE INDEX document_superseded ON ingest_pipeline.document (generation, superseded_version)
    WHERE superseded_version IS NOT NULL;
CREATE INDEX document_tombstone ON ingest_pipeline.document (generation, published_version)
    WHERE removed AND published_version IS NOT NULL AND superseded_version IS NULL;
CREATE INDEX document_unpublished ON ingest_pipeline.document (generation) WHERE published_version IS NULL;
-- No partition is null. The third condition keeps this index from statements that name keys and no partition: with
-- statistics from before the first publication the planner expects one row in it, and would read it for each key.
CREATE INDEX document_partition ON ingest_pipeline.document (generation, partition)
    WHERE published_version IS NOT NULL AND superseded_version IS NULL AND partition IS NOT NULL;

CREATE TABLE ingest_pipeline.chunk (
    saga uuid NOT NULL,
    document text COLLATE "C" NOT NULL,
    ordinal integer NOT NULL CHECK (ordinal >= 0),
    id uuid NOT NULL,
    start_offset bigint NOT NULL CHECK (start_offset >= 0),
    end_offset bigint NOT NULL CHECK (end_offset > start_offset),
    text_hash uuid NOT NULL,
    page integer CHECK (page > 0),
    last_page integer CHECK (last_page >= page),
    heading text,
    columns jsonb,
    PRIMARY KEY (saga, document, ordinal),
    FOREIGN KEY (saga, document) REFERENCES ingest_pipeline.document (saga, key) ON DELETE CASCADE
);
COMMENT ON COLUMN ingest_pipeline.chunk.text_hash IS
    'First 128 bits of the SHA-256 of what is embedded: the text, with the header before it if it has one.';
COMMENT ON COLUMN ingest_pipeline.chunk.page IS
    'Page on which the chunk begins, from 1. Null: the format has no pages.';
COMMENT ON COLUMN ingest_pipeline.chunk.heading IS
    'The headings above the chunk, outermost first, separated by " > ". Null: there is none.';
COMMENT ON COLUMN ingest_pipeline.chunk.columns IS
    'Values of the declared columns of chunks, in the form of document.columns. Null: the chunk has none.';
CREATE INDEX chunk_text_hash ON ingest_pipeline.chunk (text_hash);

CREATE TABLE ingest_pipeline.failure (
    generation text NOT NULL REFERENCES ingest_pipeline.generation (name),
    key text COLLATE "C" NOT NULL,
    partition text NOT NULL,
    etag text NOT NULL,
    recipe text NOT NULL,
    attempts integer NOT NULL,
    reason text NOT NULL,
    unreadable boolean NOT NULL,
    final boolean NOT NULL,
    error text NOT NULL,
    since timestamptz NOT NULL DEFAULT now(),
    failed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (generation, key)
);
COMMENT ON COLUMN ingest_pipeline.failure.reason IS 'Short code by which failures are counted.';
COMMENT ON COLUMN ingest_pipeline.failure.unreadable IS 'No text can be extracted from the file.';
COMMENT ON COLUMN ingest_pipeline.failure.final IS 'Another attempt at the same bytes would fail in the same way.';
COMMENT ON COLUMN ingest_pipeline.failure.since IS
    'Time of the first failure, with any bytes, since the document was last published.';

CREATE TABLE ingest_pipeline.run_failure (
    generation text PRIMARY KEY REFERENCES ingest_pipeline.generation (name) ON DELETE CASCADE,
    configuration text,
    attempts integer NOT NULL DEFAULT 0,
    passing boolean NOT NULL DEFAULT false,
    error text,
    failed_at timestamptz,
    over_limit boolean NOT NULL DEFAULT false,
    over_limit_until timestamptz,
    forgiven_at timestamptz
);
COMMENT ON COLUMN ingest_pipeline.run_failure.configuration IS
    'Fingerprint of recipe, endpoint, API key and limits. A run with another configuration does not wait.';
COMMENT ON COLUMN ingest_pipeline.run_failure.passing IS
    'The failure may be temporary, for example an endpoint that does not answer.';
COMMENT ON COLUMN ingest_pipeline.run_failure.over_limit IS
    'The run would have exceeded the token limit. Sensors request no run before over_limit_until, or at all if that is null.';
COMMENT ON COLUMN ingest_pipeline.run_failure.forgiven_at IS
    'Time before which failed runs and dead writers no longer count.';

CREATE TABLE ingest_pipeline.source_comparison (
    generation text PRIMARY KEY REFERENCES ingest_pipeline.generation (name) ON DELETE CASCADE,
    compared_at timestamptz NOT NULL,
    behind bigint NOT NULL CHECK (behind >= 0),
    behind_since timestamptz,
    CHECK ((behind > 0) = (behind_since IS NOT NULL))
);
COMMENT ON TABLE ingest_pipeline.source_comparison IS
    'The last comparison of the whole source with head, by the source sensor or by a run over all documents.';
COMMENT ON COLUMN ingest_pipeline.source_comparison.behind IS
    'Number of documents that differed, without those on hold and those that cannot be read.';
COMMENT ON COLUMN ingest_pipeline.source_comparison.behind_since IS
    'When the oldest of these changes was made, no earlier than the last comparison that found none.';

CREATE TABLE ingest_pipeline.hold (
    generation text NOT NULL REFERENCES ingest_pipeline.generation (name),
    key text COLLATE "C" NOT NULL,
    partition text NOT NULL,
    etag text,
    size bigint,
    content_hash text,
    recipe text NOT NULL,
    saga uuid NOT NULL REFERENCES ingest_pipeline.saga (id),
    held_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (generation, key)
);
COMMENT ON COLUMN ingest_pipeline.hold.etag IS
    'ETag of the object that must not be ingested. Null: the source has no object; keep the document nevertheless.';
COMMENT ON COLUMN ingest_pipeline.hold.recipe IS 'Recipe in force at the rollback. Another recipe ends the hold.';

CREATE TABLE ingest_pipeline.erasure (
    id uuid PRIMARY KEY,
    corpus text NOT NULL REFERENCES ingest_pipeline.corpus (name),
    reason text NOT NULL,
    salt bytea NOT NULL,
    writer text NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT now(),
    seen_at timestamptz NOT NULL DEFAULT now(),
    keys text[],
    fingerprints bytea,
    fingerprint_count integer,
    found integer,
    files integer,
    tables integer,
    erased_at timestamptz
);
CREATE INDEX erasure_unfinished ON ingest_pipeline.erasure (corpus) WHERE erased_at IS NULL;
COMMENT ON TABLE ingest_pipeline.erasure IS
    'Documents that were erased from both stores at a user''s request, and the receipt. No row has content or, once '
    'the erasure is finished, a key.';
COMMENT ON COLUMN ingest_pipeline.erasure.salt IS 'What precedes a key when it is hashed.';
COMMENT ON COLUMN ingest_pipeline.erasure.keys IS 'The documents to erase. Null: they are erased.';
COMMENT ON COLUMN ingest_pipeline.erasure.fingerprints IS
    'Salted 64-bit hashes of parts of the text, until the stores have been searched for them.';
COMMENT ON COLUMN ingest_pipeline.erasure.fingerprint_count IS
    'The number of fingerprints that occur in no other document.';
COMMENT ON COLUMN ingest_pipeline.erasure.found IS 'How many of the fingerprints were found after the erasure.';
COMMENT ON COLUMN ingest_pipeline.erasure.files IS 'The number of files that were searched.';
COMMENT ON COLUMN ingest_pipeline.erasure.tables IS 'The number of tables in Postgres that were searched.';
COMMENT ON COLUMN ingest_pipeline.erasure.erased_at IS 'Null: the erasure is not finished.';

CREATE TABLE ingest_pipeline.erased_document (
    erasure uuid NOT NULL REFERENCES ingest_pipeline.erasure (id) ON DELETE CASCADE,
    key_hash bytea NOT NULL,
    allowed_at timestamptz,
    PRIMARY KEY (erasure, key_hash)
);
COMMENT ON TABLE ingest_pipeline.erased_document IS
    'Erased documents. An object with such a key is not ingested again unless the user allows it.';
COMMENT ON COLUMN ingest_pipeline.erased_document.key_hash IS 'SHA-256 of the salt and the key.';
COMMENT ON COLUMN ingest_pipeline.erased_document.allowed_at IS
    'When the user allowed the object to be ingested again. Null: it is not ingested.';

CREATE TABLE ingest_pipeline.gate_judgement (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    generation text NOT NULL REFERENCES ingest_pipeline.generation (name),
    saga uuid REFERENCES ingest_pipeline.saga (id) ON DELETE CASCADE,
    head_version bigint NOT NULL,
    passed boolean NOT NULL,
    findings jsonb NOT NULL,
    judged_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    released_at timestamptz,
    files jsonb,
    columns bytea
);
CREATE INDEX gate_judgement_saga ON ingest_pipeline.gate_judgement (saga);
CREATE INDEX gate_judgement_switch ON ingest_pipeline.gate_judgement (generation, judged_at) WHERE saga IS NULL;
COMMENT ON TABLE ingest_pipeline.gate_judgement IS
    'What the gates of a corpus found in a prepared publication, or in a generation before the switch.';
COMMENT ON COLUMN ingest_pipeline.gate_judgement.saga IS
    'The publication. Null: readers were to be switched to the generation.';
COMMENT ON COLUMN ingest_pipeline.gate_judgement.head_version IS 'Head of the generation at that time.';
COMMENT ON COLUMN ingest_pipeline.gate_judgement.findings IS 'Figures with their limits, and ids of what exceeds them.';
COMMENT ON COLUMN ingest_pipeline.gate_judgement.released_at IS 'When the user accepted what did not pass.';
COMMENT ON COLUMN ingest_pipeline.gate_judgement.files IS
    'While the publication is blocked: names of the prepared data files by document.';
COMMENT ON COLUMN ingest_pipeline.gate_judgement.columns IS
    'While the publication is blocked: the columns of these files, as a schema of Arrow.';

CREATE TABLE ingest_pipeline.pin (
    corpus text NOT NULL REFERENCES ingest_pipeline.corpus (name),
    run_id text NOT NULL,
    generation text NOT NULL REFERENCES ingest_pipeline.generation (name),
    version bigint NOT NULL,
    kept_until timestamptz NOT NULL DEFAULT now() + interval '1 day',
    PRIMARY KEY (corpus, run_id)
);
CREATE INDEX pin_kept ON ingest_pipeline.pin (generation, kept_until);
COMMENT ON COLUMN ingest_pipeline.pin.kept_until IS 'Until then retention keeps the version.';

-- These views and the function are simple enough for the planner to inline, so that queries and updates use the indices
-- of the tables.
CREATE VIEW ingest_pipeline.generation_row AS
    SELECT name, corpus, state, table_uri, source, partition_by, embedding, head_version, head_saga,
        staged_manifest
    FROM ingest_pipeline.generation;
COMMENT ON VIEW ingest_pipeline.generation_row IS 'The binding and the head of each generation.';
CREATE VIEW ingest_pipeline.saga_row AS
    SELECT id, generation, kind, state, base_version, published_version, run_id, writer, started_at, seen_at, ended_at,
        reported_at, requests, retries, tokens, embedded, api_seconds, price, currency, price_as_of, error, retired_by
    FROM ingest_pipeline.saga;
COMMENT ON VIEW ingest_pipeline.saga_row IS 'The work, the outcome and the usage of each saga.';

CREATE VIEW ingest_pipeline.latest_document AS
    SELECT * FROM ingest_pipeline.document WHERE published_version IS NOT NULL AND superseded_version IS NULL;
COMMENT ON VIEW ingest_pipeline.latest_document IS
    'The latest published row for each generation and key: the document at head, or its tombstone.';
CREATE VIEW ingest_pipeline.head_document AS
    SELECT * FROM ingest_pipeline.latest_document WHERE NOT removed;
COMMENT ON VIEW ingest_pipeline.head_document IS
    'The documents at head of each generation, including generations that readers do not see.';

CREATE FUNCTION ingest_pipeline.documents_at(generation text, version bigint) RETURNS SETOF ingest_pipeline.document
LANGUAGE sql STABLE AS $$
    SELECT * FROM ingest_pipeline.document d
    WHERE d.generation = $1 AND NOT d.removed AND d.published_version <= $2
      AND (d.superseded_version IS NULL OR d.superseded_version > $2)
$$;

CREATE VIEW ingest_pipeline.head AS
    SELECT corpus, name AS table_name, table_uri, head_version AS version, head_saga AS saga, embedding
    FROM ingest_pipeline.generation WHERE state = 'current';
COMMENT ON VIEW ingest_pipeline.head IS
    'The LanceDB table of each corpus and its version at head, at which readers read.';

CREATE VIEW ingest_pipeline.current_document AS
    SELECT k.corpus, d.key, d.saga, d.partition, d.etag, d.size, d.last_modified, d.content_hash, d.recipe,
        d.character_count, d.chunk_count, d.embedded, d.cached, d.tokens, d.requests, d.retries, d.seconds,
        d.published_version, d.columns
    FROM ingest_pipeline.head_document d
    JOIN ingest_pipeline.generation k ON k.name = d.generation AND k.state = 'current';
COMMENT ON VIEW ingest_pipeline.current_document IS 'The documents at head of the current generation of each corpus.';

CREATE VIEW ingest_pipeline.current_chunk AS
    SELECT d.corpus, d.partition, c.*
    FROM ingest_pipeline.current_document d
    JOIN ingest_pipeline.chunk c ON c.saga = d.saga AND c.document = d.key;
COMMENT ON VIEW ingest_pipeline.current_chunk IS 'The chunks at head of the current generation of each corpus.';

-- The other comments. docs/reference/schema.md shows all of them.
COMMENT ON TABLE ingest_pipeline.saga IS
    'One saga: what it did, in which state it is, which version it published, and what it used.';
COMMENT ON TABLE ingest_pipeline.retired_publication IS
    'The counts of a publication, kept after its version and its catalog rows were removed.';
COMMENT ON TABLE ingest_pipeline.staged_fragment IS
    'A data file in the table''s folder that is in no version yet; its name begins with the saga''s id.';
COMMENT ON TABLE ingest_pipeline.embedded_batch IS
    'Answers to embedding requests, kept until their vectors are published, so that a crash never causes a second '
    'bill. The vectors are in a file of the table''s spool, which is named after the saga and the ordinal.';
COMMENT ON TABLE ingest_pipeline.extension_result IS
    'The result of a parser or enricher of the user that costs money or minutes, committed before it is used, so '
    'that a crash never causes a second bill. Retention deletes it.';
COMMENT ON TABLE ingest_pipeline.extension_usage IS
    'What an enricher of the user reported in a saga, by the price that applied.';
COMMENT ON TABLE ingest_pipeline.token_day IS
    'Tokens billed for all generations of a corpus on a UTC day. The limits on tokens are compared with this sum.';
COMMENT ON TABLE ingest_pipeline.served_embedding IS
    'Endpoints that answered with vectors of this model and width. Before the first such answer a run sends a '
    'single text, so that a wrong width is not billed for a whole batch.';
COMMENT ON TABLE ingest_pipeline.batch_job IS
    'Texts submitted to the API''s Batch endpoint. The row is committed before the job is submitted, so that a '
    'crash never causes a second submission.';
COMMENT ON TABLE ingest_pipeline.document IS
    'The row of a document in a saga. Readers at version v see the row whose half-open interval '
    '[published_version, superseded_version) contains v. No reader sees a row without published_version.';
COMMENT ON TABLE ingest_pipeline.failure IS
    'The failed attempts at a document with the same bytes and recipe. The row is deleted when the document is '
    'published.';
COMMENT ON TABLE ingest_pipeline.run_failure IS
    'Runs of a generation that failed as a whole since the last run that published documents. Sensors wait longer '
    'after each failure before they request the next run.';
COMMENT ON TABLE ingest_pipeline.hold IS
    'Rolled-back documents, with the object that the source had then. The object is not ingested again until it '
    'changes.';
COMMENT ON TABLE ingest_pipeline.pin IS 'The version of a corpus that a Dagster run reads, for all of its steps.';
COMMENT ON FUNCTION ingest_pipeline.this_database() IS
    'What distinguishes this database from its copies, and the position of its log. Values that the server does '
    'not show are null.';
COMMENT ON FUNCTION ingest_pipeline.documents_at(text, bigint) IS
    'The documents of a generation that readers at a version see.';
COMMENT ON COLUMN ingest_pipeline.generation.table_uri IS 'Folder of the LanceDB table.';
COMMENT ON COLUMN ingest_pipeline.generation.head_version IS 'Version of the LanceDB table that readers read.';
COMMENT ON COLUMN ingest_pipeline.generation.head_saga IS 'The saga that published the version at head.';
COMMENT ON COLUMN ingest_pipeline.generation.embedding IS
    'Model, width and document prompt of the vectors. Null: the table has no embeddings.';
COMMENT ON COLUMN ingest_pipeline.document.saga IS 'The saga that published the row.';
COMMENT ON COLUMN ingest_pipeline.document.partition IS 'Partition of the document in Dagster.';
COMMENT ON COLUMN ingest_pipeline.document.etag IS
    'Identity of the bytes in the source, as the store reports it. With columns of the user, it ends in +columns: '
    'and a hash of what they depend on.';
COMMENT ON COLUMN ingest_pipeline.document.size IS 'Bytes of the file.';
COMMENT ON COLUMN ingest_pipeline.document.last_modified IS 'Time at which the source was last modified.';
COMMENT ON COLUMN ingest_pipeline.document.content_hash IS 'SHA-256 of the bytes.';
COMMENT ON COLUMN ingest_pipeline.document.recipe IS 'Fingerprint of the recipe with which the document was ingested.';
COMMENT ON COLUMN ingest_pipeline.document.character_count IS 'Characters of the extracted text.';
COMMENT ON COLUMN ingest_pipeline.document.chunk_count IS 'Chunks of the document.';
COMMENT ON COLUMN ingest_pipeline.document.embedded IS 'Chunks whose vector was embedded for this publication.';
COMMENT ON COLUMN ingest_pipeline.document.cached IS 'Chunks whose vector existed already.';
COMMENT ON COLUMN ingest_pipeline.document.retries IS 'Requests that were repeated.';
COMMENT ON COLUMN ingest_pipeline.document.published_version IS
    'First version of the LanceDB table that shows the row. Null: not published.';
COMMENT ON COLUMN ingest_pipeline.document.superseded_version IS
    'First version that no longer shows the row. Null: it is the latest.';
COMMENT ON COLUMN ingest_pipeline.chunk.saga IS
    'The saga that wrote the row. In the views: the saga of the row of the document.';
COMMENT ON COLUMN ingest_pipeline.chunk.document IS 'Key of the document.';
COMMENT ON COLUMN ingest_pipeline.chunk.ordinal IS 'Position of the chunk in its document, from 0.';
COMMENT ON COLUMN ingest_pipeline.chunk.id IS
    'Id of the chunk, the same in LanceDB. It is derived from document, text and count.';
COMMENT ON COLUMN ingest_pipeline.chunk.start_offset IS 'Code points of the extracted text before the chunk.';
COMMENT ON COLUMN ingest_pipeline.chunk.end_offset IS 'Where the chunk ends in the extracted text.';
COMMENT ON COLUMN ingest_pipeline.chunk.last_page IS 'Page on which the chunk ends.';
COMMENT ON COLUMN ingest_pipeline.generation.partition_by IS 'Partition scheme, fixed by the first publication.';
COMMENT ON TABLE ingest_pipeline.chunk IS
    'The place of a chunk in its document, as of the saga that wrote the row. A later row of the document may share it, '
    'see document_chunk. Its text is in LanceDB.';
COMMENT ON TABLE ingest_pipeline.migration IS 'The migrations of the schema that this database has.';
