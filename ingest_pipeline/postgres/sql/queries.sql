-- lock_generation --
-- Not FOR UPDATE: the foreign key checks of sagas that prepare would wait for it. A saga prepares without the lock.
SELECT * FROM ingest_pipeline.generation_row WHERE name = %(name)s FOR NO KEY UPDATE

-- limit_waiting --
-- Runs in every transaction. A hanging process must not lock its rows for ever: Postgres ends its backend, even during
-- COPY.
SET LOCAL lock_timeout = '120s';
SET LOCAL idle_in_transaction_session_timeout = '120s';
SET LOCAL statement_timeout = '140s'

-- commit_on_disk --
-- Runs in every transaction after limit_waiting.
SET LOCAL synchronous_commit = on

-- server_durability --
SELECT current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes,
    current_setting('synchronous_commit') AS synchronous_commit

-- one_snapshot --
-- The transaction reads everything in the snapshot of its first query.
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ

-- wait_for_reader --
-- For a transaction that locks no rows, and that is idle while its reader uses the last rows.
SET LOCAL idle_in_transaction_session_timeout = '600s'

-- keepalive --
SELECT 1

-- read_generation --
SELECT * FROM ingest_pipeline.generation_row WHERE name = %(name)s

-- read_current --
SELECT * FROM ingest_pipeline.generation_row WHERE corpus = %(corpus)s AND state = 'current'

-- generations --
-- All generations of a corpus, oldest first.
SELECT name, state, state_since, embedding, head_version, table_uri,
    (SELECT count(*) FROM ingest_pipeline.head_document d WHERE d.generation = k.name)
    AS documents
FROM ingest_pipeline.generation k WHERE corpus = %(corpus)s ORDER BY created_at, name

-- reembedding_progress --
-- Counts documents whatever their contents: the new generation ingests later changes before readers move to it.
SELECT count(n.key) AS documents, count(*) AS documents_to_hold
FROM ingest_pipeline.head_document o
LEFT JOIN ingest_pipeline.head_document n ON n.generation = %(new)s AND n.key = o.key
WHERE o.generation = %(old)s

-- lock_generations --
-- Locks in the order of the names, so that two processes that lock the same rows cannot deadlock.
SELECT * FROM ingest_pipeline.generation_row WHERE name = ANY(%(names)s) ORDER BY name FOR NO KEY UPDATE

-- set_state --
UPDATE ingest_pipeline.generation SET state = %(state)s, state_since = now() WHERE name = %(name)s

-- generation_differences --
-- Documents that differ between the heads of two generations. The same bytes with another ETag are no difference.
SELECT key, coalesce(o.partition, n.partition) AS partition, o.saga AS old_saga, n.etag AS new_etag
FROM (
    SELECT key, partition, saga, etag, content_hash, columns FROM ingest_pipeline.head_document
    WHERE generation = %(old)s
) o FULL JOIN (
    SELECT key, partition, saga, etag, content_hash, columns FROM ingest_pipeline.head_document
    WHERE generation = %(new)s
) n USING (key)
WHERE o.saga IS NULL OR n.saga IS NULL
   OR (o.etag IS DISTINCT FROM n.etag AND (o.content_hash, o.columns) IS DISTINCT FROM (n.content_hash, n.columns))
ORDER BY key

-- generation_summaries --
SELECT k.corpus, k.name, k.state, k.table_uri, k.source, k.partition_by, k.embedding, k.head_version,
    count(d.key) AS documents, coalesce(sum(d.chunk_count), 0)::bigint AS chunks
FROM ingest_pipeline.generation k
LEFT JOIN ingest_pipeline.head_document d ON d.generation = k.name
WHERE k.state <> 'dropped' GROUP BY k.name ORDER BY k.corpus, k.created_at, k.name

-- living_generations --
SELECT * FROM ingest_pipeline.generation_row WHERE corpus = %(corpus)s AND state <> 'dropped' ORDER BY name

-- forget_some_documents --
DELETE FROM ingest_pipeline.document
WHERE (saga, key) IN (SELECT saga, key FROM ingest_pipeline.document WHERE generation = %(generation)s LIMIT %(limit)s)

-- forget_sagas --
DELETE FROM ingest_pipeline.saga WHERE generation = %(generation)s

-- count_recipe --
SELECT count(*) FILTER (WHERE recipe = ANY(%(recipes)s::text[])) AS made,
    count(*) FILTER (WHERE recipe <> ALL(%(recipes)s::text[])) AS of_other_recipes
FROM ingest_pipeline.head_document WHERE generation = %(generation)s

-- rename_recipe --
WITH renamed AS (
    SELECT * FROM unnest(%(old)s::text[], %(new)s::text[]) AS r (old, new)
), documents AS (
    UPDATE ingest_pipeline.document d SET recipe = r.new FROM renamed r WHERE generation = %(generation)s AND recipe = r.old
), failures AS (
    UPDATE ingest_pipeline.failure f SET recipe = r.new FROM renamed r WHERE generation = %(generation)s AND recipe = r.old
), holds AS (
    UPDATE ingest_pipeline.hold h SET recipe = r.new FROM renamed r WHERE generation = %(generation)s AND recipe = r.old
), batches AS (
    UPDATE ingest_pipeline.embedded_batch b SET embedding = %(new_embedding)s FROM ingest_pipeline.saga s
    WHERE s.id = b.saga AND s.generation = %(generation)s AND b.embedding = %(old_embedding)s
)
UPDATE ingest_pipeline.batch_job SET embedding = %(new_embedding)s
WHERE generation = %(generation)s AND embedding = %(old_embedding)s

-- count_generations --
SELECT count(*) AS found FROM ingest_pipeline.generation WHERE corpus = %(corpus)s

-- is_bound --
-- Sagas of creation, restore and maintenance do not count: they publish no documents.
SELECT EXISTS (
    SELECT 1 FROM ingest_pipeline.saga
    WHERE generation = k.name AND state = 'published' AND kind NOT IN ('create', 'restore', 'maintenance')
) OR EXISTS (
    SELECT 1 FROM ingest_pipeline.generation g WHERE g.corpus = k.corpus AND g.state IN ('building', 'retired')
) OR EXISTS (
    SELECT 1 FROM ingest_pipeline.batch_job WHERE generation = k.name AND state IN ('submitting', 'submitted')
) AS found
FROM ingest_pipeline.generation k WHERE k.name = %(name)s

-- rebind --
UPDATE ingest_pipeline.generation SET table_uri = %(table_uri)s, source = %(source)s, partition_by = %(partition_by)s,
    embedding = %(embedding)s
WHERE name = %(name)s

-- move_ended_sagas --
-- None of these sagas published anything. Each keeps its vectors and its cost.
WITH orders AS (
    UPDATE ingest_pipeline.batch_job SET generation = %(new)s WHERE generation = %(old)s
), planned AS (
    DELETE FROM ingest_pipeline.document WHERE generation = %(old)s
), fragments AS (
    DELETE FROM ingest_pipeline.staged_fragment f USING ingest_pipeline.saga s WHERE s.id = f.saga AND s.generation = %(old)s
)
UPDATE ingest_pipeline.saga SET generation = %(new)s WHERE generation = %(old)s AND state <> 'published'

-- abandon_live_sagas --
UPDATE ingest_pipeline.saga SET state = 'abandoned', error = %(error)s, ended_at = now()
WHERE generation = %(generation)s AND state IN ('preparing', 'prepared', 'blocked') AND id <> ALL(%(keep)s::uuid[])
RETURNING id

-- block_saga --
UPDATE ingest_pipeline.saga SET state = 'blocked', error = %(error)s, seen_at = now()
WHERE id = %(id)s AND state = 'prepared' RETURNING id

-- unblock_saga --
UPDATE ingest_pipeline.saga SET state = 'prepared', error = NULL, seen_at = now()
WHERE id = %(id)s AND state = 'blocked' RETURNING id

-- drop_blocked --
UPDATE ingest_pipeline.saga SET state = 'failed', error = %(error)s, ended_at = now()
WHERE id = %(id)s AND state = 'blocked' RETURNING id

-- overtake_blocked --
-- Ends the blocked publications that have a document of this saga.
UPDATE ingest_pipeline.saga s SET state = 'failed', error = %(error)s, ended_at = now()
WHERE s.generation = (SELECT generation FROM ingest_pipeline.saga WHERE id = %(saga)s) AND s.state = 'blocked'
  AND s.id <> %(saga)s AND EXISTS (
    SELECT FROM ingest_pipeline.document own
    CROSS JOIN LATERAL (SELECT FROM ingest_pipeline.document WHERE saga = s.id AND key = own.key OFFSET 0) AS blocked
    WHERE own.saga = %(saga)s)
RETURNING s.id

-- blocked_sagas --
SELECT id FROM ingest_pipeline.saga WHERE generation = %(generation)s AND state = 'blocked'

-- blocked_documents --
SELECT d.key, d.partition, d.etag, d.recipe, s.id AS saga
FROM ingest_pipeline.saga s JOIN ingest_pipeline.document d ON d.saga = s.id
WHERE s.generation = %(generation)s AND s.state = 'blocked' AND (%(keys)s::text[] IS NULL OR d.key = ANY(%(keys)s))
ORDER BY s.started_at

-- record_judgement --
INSERT INTO ingest_pipeline.gate_judgement (generation, saga, head_version, passed, findings, files, columns)
VALUES (%(generation)s, %(saga)s, %(head_version)s, %(passed)s, %(findings)s, %(files)s, %(columns)s)

-- release_judgement --
UPDATE ingest_pipeline.gate_judgement SET released_at = now(), files = NULL, columns = NULL
WHERE NOT passed AND released_at IS NULL
  AND (saga = %(saga)s OR (saga IS NULL AND %(saga)s::uuid IS NULL AND generation = %(generation)s)) RETURNING id

-- forget_prepared_files --
UPDATE ingest_pipeline.gate_judgement SET files = NULL, columns = NULL WHERE saga = %(saga)s AND files IS NOT NULL

-- forget_details --
UPDATE ingest_pipeline.gate_judgement j SET findings = '[]', files = NULL, columns = NULL
WHERE NOT passed AND (generation = %(generation)s
    OR EXISTS (SELECT FROM ingest_pipeline.saga s WHERE s.id = j.saga AND s.generation = %(generation)s))

-- blocked_publications --
SELECT s.id AS saga, s.generation, s.run_id, j.judged_at, j.head_version, j.findings,
    (SELECT count(*) FROM ingest_pipeline.document d WHERE d.saga = s.id AND NOT d.removed) AS documents,
    (SELECT count(*) FROM ingest_pipeline.document d WHERE d.saga = s.id AND d.removed) AS removed,
    (SELECT coalesce(sum(d.chunk_count), 0)::int FROM ingest_pipeline.document d WHERE d.saga = s.id) AS chunks
FROM ingest_pipeline.saga s JOIN ingest_pipeline.gate_judgement j ON j.saga = s.id
WHERE s.generation = %(generation)s AND s.state = 'blocked'
ORDER BY s.started_at

-- prepared_files --
SELECT files, columns FROM ingest_pipeline.gate_judgement WHERE saga = %(saga)s AND files IS NOT NULL

-- staged_fragments --
SELECT name, row_count FROM ingest_pipeline.staged_fragment WHERE saga = %(saga)s

-- removed_keys --
SELECT key FROM ingest_pipeline.document WHERE saga = %(saga)s AND removed

-- last_judgement_of_switch --
SELECT passed, released_at, findings, head_version, judged_at FROM ingest_pipeline.gate_judgement
WHERE generation = %(generation)s AND saga IS NULL ORDER BY judged_at DESC LIMIT 1

-- chunk_counts --
SELECT count(*) AS chunks, count(*) - count(DISTINCT c.text_hash) AS duplicates,
    count(*) FILTER (WHERE c.end_offset - c.start_offset > %(characters)s) AS long
FROM ingest_pipeline.document d JOIN ingest_pipeline.chunk c ON c.saga = d.saga AND c.document = d.key
WHERE d.saga = %(saga)s OR (%(saga)s::uuid IS NULL AND d.generation = %(generation)s
    AND d.published_version IS NOT NULL AND d.superseded_version IS NULL)

-- long_chunks --
SELECT c.id
FROM ingest_pipeline.document d JOIN ingest_pipeline.chunk c ON c.saga = d.saga AND c.document = d.key
WHERE (d.saga = %(saga)s OR (%(saga)s::uuid IS NULL AND d.generation = %(generation)s
    AND d.published_version IS NOT NULL AND d.superseded_version IS NULL))
  AND c.end_offset - c.start_offset > %(characters)s
ORDER BY c.end_offset - c.start_offset DESC, c.document, c.ordinal LIMIT %(limit)s

-- duplicate_chunks --
SELECT id FROM (
    SELECT c.id, c.document, c.ordinal,
        row_number() OVER (PARTITION BY c.text_hash ORDER BY c.document, c.ordinal) AS occurrence
    FROM ingest_pipeline.document d JOIN ingest_pipeline.chunk c ON c.saga = d.saga AND c.document = d.key
    WHERE d.saga = %(saga)s OR (%(saga)s::uuid IS NULL AND d.generation = %(generation)s
        AND d.published_version IS NOT NULL AND d.superseded_version IS NULL)
) AS numbered
WHERE occurrence > 1 ORDER BY document, ordinal LIMIT %(limit)s

-- lost_documents --
SELECT old.key, new.key IS NULL AS removed
FROM ingest_pipeline.head_document old
LEFT JOIN ingest_pipeline.head_document new ON new.generation = %(new)s AND new.key = old.key
WHERE old.generation = %(old)s AND (new.key IS NULL OR (old.chunk_count > 0 AND new.chunk_count = 0))
ORDER BY old.key

-- mark_unreported --
UPDATE ingest_pipeline.saga SET reported_at = NULL WHERE generation = %(generation)s AND state = 'published' AND kind = 'ingest'

-- forget_generation --
-- Deletes the catalog rows of the generation. Its sagas are kept, because their costs were billed.
WITH documents AS (
    DELETE FROM ingest_pipeline.document WHERE generation = %(generation)s
), failures AS (
    DELETE FROM ingest_pipeline.failure WHERE generation = %(generation)s
), holds AS (
    DELETE FROM ingest_pipeline.hold WHERE generation = %(generation)s
), pins AS (
    DELETE FROM ingest_pipeline.pin WHERE generation = %(generation)s
), comparisons AS (
    DELETE FROM ingest_pipeline.source_comparison WHERE generation = %(generation)s
), fragments AS (
    DELETE FROM ingest_pipeline.staged_fragment f USING ingest_pipeline.saga s
    WHERE s.id = f.saga AND s.generation = %(generation)s
)
DELETE FROM ingest_pipeline.embedded_batch b USING ingest_pipeline.saga s WHERE s.id = b.saga AND s.generation = %(generation)s

-- read_recipes --
SELECT recipes FROM ingest_pipeline.generation WHERE name = %(name)s

-- lock_recipes --
SELECT recipes FROM ingest_pipeline.generation WHERE name = %(name)s FOR NO KEY UPDATE

-- put_recipe_in_force --
-- A recipe that was in force earlier moves to the end of the list.
UPDATE ingest_pipeline.generation SET recipes = coalesce((
        SELECT jsonb_agg(one ORDER BY place) FROM jsonb_array_elements(recipes) WITH ORDINALITY AS r (one, place)
        WHERE one ->> 'fingerprint' <> %(fingerprint)s
    ), '[]') || jsonb_build_array(jsonb_build_object(
        'fingerprint', %(fingerprint)s::text, 'parts', %(parts)s::jsonb, 'since', now()))
WHERE name = %(name)s

-- documents_by_recipe --
-- A document's recipe depends on the suffix of its key if a parser of the user parses it.
SELECT count(*) AS latest, count(*) FILTER (WHERE d.recipe <> wanted.recipe) AS of_other_recipes,
    -- What precedes the mark is equal if only enrichers differ, and then nothing is embedded.
    coalesce(sum(character_count) FILTER (WHERE split_part(d.recipe, '+', 1) <> split_part(wanted.recipe, '+', 1)), 0)
        ::bigint AS characters
FROM ingest_pipeline.head_document d
CROSS JOIN LATERAL (
    SELECT coalesce((SELECT own.recipe FROM unnest(%(suffixes)s::text[], %(recipes)s::text[]) AS own (suffix, recipe)
        WHERE own.suffix = lower(substring(d.key FROM '[^/](\.[^./]+)$'))), %(recipe)s) AS recipe
) AS wanted
WHERE generation = %(generation)s

-- insert_generation --
WITH named AS (
    INSERT INTO ingest_pipeline.corpus (name) VALUES (%(corpus)s) ON CONFLICT DO NOTHING
)
INSERT INTO ingest_pipeline.generation
    (name, corpus, state, table_uri, source, partition_by, embedding, head_version, head_saga)
VALUES (%(name)s, %(corpus)s, %(state)s, %(table_uri)s, %(source)s, %(partition_by)s, %(embedding)s, %(head_version)s, %(head_saga)s)

-- move_head --
UPDATE ingest_pipeline.generation
SET head_version = %(version)s, head_saga = %(saga)s, staged_manifest = %(manifest)s
WHERE name = %(name)s

-- this_database --
SELECT installation, system, timeline, number, folder, name, flushed, written FROM ingest_pipeline.this_database()

-- clock --
SELECT clock_timestamp() AS now

-- begin_saga --
INSERT INTO ingest_pipeline.saga
    (id, generation, kind, base_version, run_id, writer, target_version, price, currency, price_as_of)
VALUES (%(id)s, %(generation)s, %(kind)s, %(base_version)s, %(run_id)s, %(writer)s, %(target_version)s, %(price)s,
    %(currency)s, %(price_as_of)s)

-- touch_saga --
UPDATE ingest_pipeline.saga SET seen_at = now()
WHERE id = %(id)s AND state IN ('preparing', 'prepared') RETURNING id

-- count_usage --
-- Adds the usage of a request to the embedding API. The daily sum is compared with the limits.
WITH counted AS (
    UPDATE ingest_pipeline.saga SET seen_at = now(),
        requests = requests + %(requests)s, retries = retries + %(retries)s, tokens = tokens + %(tokens)s,
        unusable_tokens = unusable_tokens + %(unusable_tokens)s, embedded = embedded + %(embedded)s,
        embedded_characters = embedded_characters + %(characters)s, api_seconds = api_seconds + %(seconds)s
    WHERE id = %(saga)s RETURNING generation
)
INSERT INTO ingest_pipeline.token_day AS t (corpus, day, tokens)
SELECT k.corpus, (now() AT TIME ZONE 'UTC')::date, %(tokens)s
FROM counted JOIN ingest_pipeline.generation k ON k.name = counted.generation
ON CONFLICT (corpus, day) DO UPDATE SET tokens = t.tokens + excluded.tokens

-- count_extension_usage --
WITH counted AS (
    UPDATE ingest_pipeline.saga SET seen_at = now(), extension_tokens = extension_tokens + %(tokens)s,
        extension_requests = extension_requests + %(requests)s
    WHERE id = %(saga)s RETURNING generation
)
INSERT INTO ingest_pipeline.token_day AS t (corpus, day, extension_tokens)
SELECT k.corpus, (now() AT TIME ZONE 'UTC')::date, %(tokens)s
FROM counted JOIN ingest_pipeline.generation k ON k.name = counted.generation
ON CONFLICT (corpus, day) DO UPDATE SET extension_tokens = t.extension_tokens + excluded.extension_tokens

-- add_extension_usage --
INSERT INTO ingest_pipeline.extension_usage AS u (saga, extension, currency, price_as_of, tokens, requests, amount)
SELECT id, %(extension)s, %(currency)s, %(as_of)s, %(tokens)s, %(requests)s, %(amount)s
FROM ingest_pipeline.saga WHERE id = %(saga)s
ON CONFLICT (saga, extension, coalesce(currency, ''), coalesce(price_as_of, '-infinity')) DO UPDATE
SET tokens = u.tokens + excluded.tokens, requests = u.requests + excluded.requests, amount = u.amount + excluded.amount

-- find_extension_result --
UPDATE ingest_pipeline.extension_result SET used_at = now()
WHERE (corpus, extension, fingerprint, input_hash) = (%(corpus)s, %(extension)s, %(fingerprint)s, %(input_hash)s)
RETURNING result

-- find_chunk_results --
-- Documents that are read at the same time may share chunks, so their rows are locked in one order.
WITH found AS (
    SELECT r.input_hash, wanted.text_hash
    FROM unnest(%(input_hashes)s::text[], %(text_hashes)s::uuid[]) AS wanted (input_hash, text_hash)
    JOIN ingest_pipeline.extension_result r ON (r.corpus, r.extension, r.fingerprint, r.input_hash)
        = (%(corpus)s, %(extension)s, %(fingerprint)s, wanted.input_hash)
    ORDER BY r.input_hash
    FOR UPDATE OF r
)
UPDATE ingest_pipeline.extension_result r
SET used_at = now(), text_hash = found.text_hash, content_hash = %(content_hash)s
FROM found
WHERE (r.corpus, r.extension, r.fingerprint, r.input_hash)
    = (%(corpus)s, %(extension)s, %(fingerprint)s, found.input_hash)
RETURNING r.input_hash, r.result

-- record_chunk_results --
INSERT INTO ingest_pipeline.extension_result
    (corpus, extension, fingerprint, input_hash, content_hash, text_hash, result)
SELECT %(corpus)s, %(extension)s, %(fingerprint)s, found.input_hash, %(content_hash)s, found.text_hash, found.result
FROM unnest(%(input_hashes)s::text[], %(text_hashes)s::uuid[], %(results)s::bytea[])
    AS found (input_hash, text_hash, result)
ORDER BY found.input_hash
ON CONFLICT (corpus, extension, fingerprint, input_hash) DO UPDATE SET used_at = now()

-- record_extension_result --
INSERT INTO ingest_pipeline.extension_result (corpus, extension, fingerprint, input_hash, content_hash, result)
VALUES (%(corpus)s, %(extension)s, %(fingerprint)s, %(input_hash)s, %(content_hash)s, %(result)s)
ON CONFLICT (corpus, extension, fingerprint, input_hash) DO UPDATE SET used_at = now()

-- forget_extension_results --
-- Results that were not used for a while, and whose bytes no kept version shows or that a newer fingerprint replaced.
-- The result of a chunk is kept as long as any document has the chunk. Without days, as after an erasure: all results
-- that no document of the catalog has, also those of documents that were never published.
WITH gone AS (
    SELECT r.corpus, r.extension, r.fingerprint, r.input_hash FROM ingest_pipeline.extension_result r
    WHERE r.corpus = %(corpus)s
      AND (%(days)s::int IS NULL OR r.used_at < now() - make_interval(days => %(days)s::int)) AND (
        NOT EXISTS (
            SELECT 1 FROM ingest_pipeline.document d JOIN ingest_pipeline.generation k ON k.name = d.generation
            WHERE k.corpus = r.corpus AND d.content_hash = r.content_hash
        ) AND NOT EXISTS (
            SELECT 1 FROM ingest_pipeline.chunk c
            JOIN ingest_pipeline.document d ON d.saga = c.saga AND d.key = c.document
            JOIN ingest_pipeline.generation k ON k.name = d.generation
            WHERE k.corpus = r.corpus AND c.text_hash = r.text_hash
        ) OR %(days)s::int IS NOT NULL AND EXISTS (
            SELECT 1 FROM ingest_pipeline.extension_result newer
            WHERE newer.corpus = r.corpus AND newer.extension = r.extension AND newer.content_hash = r.content_hash
              AND newer.made_at > r.made_at AND r.text_hash IS NULL AND newer.text_hash IS NULL
        ) OR %(days)s::int IS NOT NULL AND EXISTS (
            SELECT 1 FROM ingest_pipeline.extension_result newer
            WHERE newer.corpus = r.corpus AND newer.extension = r.extension AND newer.input_hash = r.input_hash
              AND newer.made_at > r.made_at AND newer.fingerprint <> r.fingerprint AND r.text_hash IS NOT NULL
        )
    )
    LIMIT %(limit)s::bigint
)
DELETE FROM ingest_pipeline.extension_result r USING gone
WHERE (r.corpus, r.extension, r.fingerprint, r.input_hash)
    = (gone.corpus, gone.extension, gone.fingerprint, gone.input_hash)

-- drop_extension_results --
DELETE FROM ingest_pipeline.extension_result WHERE corpus = %(corpus)s

-- tokens_spent --
SELECT
    (SELECT coalesce(sum(CASE WHEN %(extensions_only)s THEN 0 ELSE tokens END + extension_tokens), 0)::bigint
     FROM ingest_pipeline.saga WHERE id = ANY(%(sagas)s::uuid[]) OR run_id = %(run_id)s
       OR writer = ANY(%(writers)s::text[])) AS run,
    coalesce((SELECT CASE WHEN %(extensions_only)s THEN 0 ELSE tokens END + extension_tokens FROM ingest_pipeline.token_day
     WHERE corpus = %(corpus)s AND day = (now() AT TIME ZONE 'UTC')::date), 0)::bigint AS today,
    (date_trunc('day', now() AT TIME ZONE 'UTC') + interval '1 day') AT TIME ZONE 'UTC' AS day_ends

-- is_served --
SELECT EXISTS (
    SELECT 1 FROM ingest_pipeline.served_embedding WHERE endpoint = %(endpoint)s AND embedding = %(embedding)s
) AS found

-- mark_served --
INSERT INTO ingest_pipeline.served_embedding (endpoint, embedding) VALUES (%(endpoint)s, %(embedding)s)
ON CONFLICT DO NOTHING

-- forget_served --
DELETE FROM ingest_pipeline.served_embedding WHERE endpoint = %(endpoint)s AND embedding = %(embedding)s

-- insert_batch --
-- Nothing is recorded for a saga that began before an erasure: its texts may be those of an erased document.
INSERT INTO ingest_pipeline.embedded_batch (saga, ordinal, embedding, text_hashes, checksum, vectors)
SELECT %(saga)s, %(ordinal)s, %(embedding)s, %(text_hashes)s, %(checksum)s, %(vectors)s
WHERE NOT EXISTS (
    SELECT 1 FROM ingest_pipeline.saga s JOIN ingest_pipeline.saga e ON e.generation = s.generation
    WHERE s.id = %(saga)s AND e.kind = 'erasure' AND e.state = 'published' AND e.published_version > s.base_version)
RETURNING (
    SELECT s.state NOT IN ('preparing', 'prepared') FROM ingest_pipeline.saga s WHERE s.id = embedded_batch.saga
) AS has_ended

-- insert_fragment --
INSERT INTO ingest_pipeline.staged_fragment (saga, name, row_count) VALUES (%(saga)s, %(name)s, %(row_count)s)

-- prepare_saga --
UPDATE ingest_pipeline.saga SET state = 'prepared', seen_at = now(), prepared_at = now()
WHERE id = %(id)s AND state = 'preparing' RETURNING id

-- publish_saga --
-- A saga that was planned on a version before an erasure may have data of the erased documents.
UPDATE ingest_pipeline.saga s
SET state = 'published', base_version = %(base_version)s, published_version = %(version)s, seen_at = now(), ended_at = now()
WHERE id = %(id)s AND state = 'prepared' AND NOT EXISTS (
    SELECT 1 FROM ingest_pipeline.saga e WHERE e.generation = s.generation AND e.kind = 'erasure'
      AND e.state = 'published' AND e.published_version > s.base_version)
RETURNING id

-- complete_saga --
UPDATE ingest_pipeline.saga SET state = 'completed', ended_at = now() WHERE id = %(id)s AND state = 'preparing' RETURNING id

-- fail_saga --
UPDATE ingest_pipeline.saga SET state = 'failed', error = %(error)s, ended_at = now()
WHERE id = %(id)s AND state IN ('preparing', 'prepared') RETURNING id

-- compensate_sagas --
UPDATE ingest_pipeline.saga SET state = 'compensated', error = %(error)s, ended_at = now()
WHERE id = ANY(%(ids)s) AND state = 'prepared' RETURNING id

-- abandon_sagas --
-- A locked row belongs to a backend that is alive or about to end. The process that settles skips the row, because it
-- must not wait while it holds the lock of the generation.
WITH dead AS MATERIALIZED (
    SELECT id FROM ingest_pipeline.saga WHERE generation = %(generation)s AND state IN ('preparing', 'prepared')
      AND (id = ANY(%(gone)s) OR run_id = ANY(%(dead_runs)s) OR seen_at < now() - make_interval(secs => %(limit)s))
), free AS MATERIALIZED (
    SELECT id FROM ingest_pipeline.saga
    WHERE id IN (SELECT id FROM dead) AND state IN ('preparing', 'prepared') FOR NO KEY UPDATE SKIP LOCKED
), ended AS (
    UPDATE ingest_pipeline.saga s SET state = 'abandoned', error = %(error)s, ended_at = now()
    FROM free WHERE s.id = free.id RETURNING s.id
)
SELECT dead.id, ended.id IS NOT NULL AS ended FROM dead LEFT JOIN ended ON ended.id = dead.id

-- read_saga --
SELECT * FROM ingest_pipeline.saga_row WHERE id = %(id)s

-- unfinished_sagas --
SELECT * FROM ingest_pipeline.saga_row WHERE generation = %(generation)s AND state IN ('preparing', 'prepared') ORDER BY started_at

-- published_sagas --
SELECT * FROM ingest_pipeline.saga_row
WHERE generation = %(generation)s AND state = 'published' AND published_version IS NOT NULL
ORDER BY published_version DESC LIMIT %(limit)s

-- last_change --
-- Maintenance and restores move head, but readers see the same documents.
SELECT * FROM ingest_pipeline.saga_row WHERE id = (
    SELECT id FROM ingest_pipeline.saga
    WHERE generation = %(generation)s AND state = 'published' AND retired_by IS NULL
      AND kind NOT IN ('create', 'maintenance', 'restore')
    ORDER BY published_version DESC LIMIT 1)

-- runs_published --
SELECT EXISTS (SELECT FROM ingest_pipeline.saga WHERE run_id = ANY(%(runs)s) AND state = 'published') AS found

-- unreported_sagas --
SELECT * FROM ingest_pipeline.saga_row
WHERE generation = %(generation)s AND state = 'published' AND kind IN ('ingest', 'rollback') AND reported_at IS NULL
  AND run_id IS NOT NULL
ORDER BY published_version

-- mark_reported --
UPDATE ingest_pipeline.saga SET reported_at = now() WHERE id = %(id)s

-- live_sagas --
SELECT id FROM ingest_pipeline.saga WHERE generation = %(generation)s AND state IN ('preparing', 'prepared')

-- oldest_needed --
-- A live saga may read its base version, a rollback its target version, and a Dagster run the version of its pin.
-- The index of the retained publications is read from both its ends, and only as far as needed: from the oldest one to
-- the first that ceased to be head within these days, and from head over the last publications.
SELECT least(
    (SELECT s.published_version
     FROM ingest_pipeline.saga s
     LEFT JOIN LATERAL (
         SELECT next.ended_at FROM ingest_pipeline.saga next
         WHERE next.generation = s.generation AND next.state = 'published' AND next.retired_by IS NULL
           AND next.published_version > s.published_version
         ORDER BY next.published_version LIMIT 1
     ) AS successor ON true
     WHERE s.generation = %(generation)s AND s.state = 'published' AND s.retired_by IS NULL
       AND (successor.ended_at IS NULL OR successor.ended_at > now() - make_interval(days => %(days)s))
     ORDER BY s.published_version LIMIT 1),
    (SELECT min(counted.published_version) FROM (
        SELECT published_version FROM ingest_pipeline.saga
        WHERE generation = %(generation)s AND state = 'published' AND retired_by IS NULL AND kind NOT IN ('maintenance', 'restore')
        ORDER BY published_version DESC LIMIT %(publications)s) AS counted),
    (SELECT min(least(base_version, target_version)) FROM ingest_pipeline.saga
     WHERE generation = %(generation)s AND state IN ('preparing', 'prepared')),
    (SELECT min(version) FROM ingest_pipeline.pin WHERE generation = %(generation)s AND kept_until > now()),
    %(at_least)s::bigint) AS version

-- renew_pin --
UPDATE ingest_pipeline.pin SET kept_until = now() + interval '1 day'
WHERE corpus = %(corpus)s AND run_id = %(run_id)s RETURNING generation, version

-- insert_pin --
INSERT INTO ingest_pipeline.pin AS p (corpus, run_id, generation, version)
VALUES (%(corpus)s, %(run_id)s, %(generation)s, %(version)s)
ON CONFLICT (corpus, run_id) DO UPDATE SET kept_until = p.kept_until RETURNING generation, version

-- runs_behind --
SELECT run_id FROM ingest_pipeline.pin
WHERE corpus = %(corpus)s AND (generation <> %(generation)s OR version < %(version)s) AND kept_until > now()
ORDER BY kept_until DESC LIMIT 100

-- forget_pins --
DELETE FROM ingest_pipeline.pin WHERE kept_until < now() - interval '30 days'

-- count_publications --
-- What publications had brought that will be retired. They do not change any more.
INSERT INTO ingest_pipeline.retired_publication (saga, documents, removed, chunks, cached)
SELECT s.id, brought.documents, brought.removed, brought.chunks, brought.cached
FROM (
    SELECT id FROM ingest_pipeline.saga
    WHERE generation = %(generation)s AND state = 'published' AND retired_by IS NULL AND published_version < %(before)s
      AND (%(among)s::bigint[] IS NULL OR published_version = ANY(%(among)s))
      AND NOT EXISTS (SELECT 1 FROM ingest_pipeline.retired_publication r WHERE r.saga = saga.id)
    ORDER BY published_version LIMIT %(limit)s
) AS s
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE NOT d.removed) AS documents, count(*) FILTER (WHERE d.removed) AS removed,
        coalesce(sum(d.chunk_count), 0) AS chunks, coalesce(sum(d.cached), 0) AS cached
    FROM ingest_pipeline.document d WHERE d.saga = s.id AND d.published_version IS NOT NULL
) AS brought
ON CONFLICT (saga) DO NOTHING

-- retire_versions --
-- Under the lock, so their documents were counted before.
UPDATE ingest_pipeline.saga SET retired_by = %(by)s
WHERE generation = %(generation)s AND state = 'published' AND retired_by IS NULL AND published_version < %(before)s
  AND (%(among)s::bigint[] IS NULL OR published_version = ANY(%(among)s))

-- forget_superseded --
-- A row stays, without a reader, as long as a row that is needed shares its chunk rows.
DELETE FROM ingest_pipeline.document
WHERE (saga, key) IN (
    SELECT saga, key FROM ingest_pipeline.document old
    WHERE generation = %(generation)s AND superseded_version <= %(oldest)s AND NOT EXISTS (
        SELECT 1 FROM ingest_pipeline.document edited CROSS JOIN LATERAL unnest(edited.ranges) AS r
        WHERE edited.generation = old.generation AND edited.key = old.key AND edited.ranges IS NOT NULL
          AND (edited.superseded_version IS NULL OR edited.superseded_version > %(oldest)s) AND r.saga = old.saga)
    LIMIT %(limit)s)

-- forget_tombstones --
-- Tombstones of documents that no reader of a retained version sees. A removal must be reported to Dagster first.
DELETE FROM ingest_pipeline.document
WHERE (saga, key) IN (
    SELECT d.saga, d.key FROM ingest_pipeline.document d JOIN ingest_pipeline.saga s ON s.id = d.saga
    WHERE d.generation = %(generation)s AND d.removed AND d.superseded_version IS NULL AND d.published_version < %(oldest)s
      AND (s.run_id IS NULL OR s.reported_at IS NOT NULL)
    LIMIT %(limit)s)

-- known_sagas --
SELECT id FROM ingest_pipeline.saga WHERE generation = %(generation)s AND id = ANY(%(ids)s)

-- saga_ends --
SELECT id, coalesce(ended_at, clock_timestamp()) AS ended_at
FROM ingest_pipeline.saga WHERE generation = %(generation)s AND id = ANY(%(ids)s)

-- saga_outcomes --
SELECT id, state, prepared_at IS NOT NULL AS was_prepared FROM ingest_pipeline.saga WHERE id = ANY(%(ids)s)

-- insert_unknown --
-- Sagas of another database, or of a lost history, as the table records them.
INSERT INTO ingest_pipeline.saga (id, generation, kind, state, base_version, writer, ended_at, error)
SELECT id, %(generation)s, 'other', %(state)s, version, %(writer)s, now(), %(error)s
FROM unnest(%(ids)s::uuid[], %(versions)s::bigint[]) AS other (id, version)
ON CONFLICT (id) DO NOTHING

-- published_versions --
SELECT published_version FROM ingest_pipeline.saga
WHERE generation = %(generation)s AND state = 'published' AND published_version = ANY(%(among)s)

-- spent_batches --
-- Batches that are no longer needed: all of their texts are at head, or they are a week old.
SELECT b.saga, b.ordinal
FROM ingest_pipeline.embedded_batch b JOIN ingest_pipeline.saga s ON s.id = b.saga
WHERE s.generation = %(generation)s AND s.state NOT IN ('preparing', 'prepared', 'blocked') AND (
    s.ended_at < now() - interval '7 days' OR NOT EXISTS (
        SELECT 1 FROM unnest(b.text_hashes) AS h (hash)
        WHERE NOT EXISTS (
            SELECT 1 FROM ingest_pipeline.chunk c
            JOIN ingest_pipeline.document d ON d.generation = s.generation AND d.key = c.document
            WHERE d.published_version IS NOT NULL AND d.superseded_version IS NULL AND c.text_hash = h.hash
              AND (d.saga = c.saga OR d.ranges IS NOT NULL AND EXISTS (
                SELECT 1 FROM unnest(d.ranges) AS r
                WHERE r.saga = c.saga AND c.ordinal >= r.first AND c.ordinal < r.last)))))

-- count_ended --
SELECT
    (SELECT count(*) FROM ingest_pipeline.staged_fragment f JOIN ingest_pipeline.saga s ON s.id = f.saga
     WHERE s.generation = %(generation)s AND s.state NOT IN ('preparing', 'prepared', 'blocked'))
    + (SELECT count(*) FROM ingest_pipeline.document d JOIN ingest_pipeline.saga s ON s.id = d.saga
       WHERE d.generation = %(generation)s AND d.published_version IS NULL
         AND s.state IN ('completed', 'compensated', 'failed', 'abandoned', 'adopted'))
    + cardinality(%(ordinals)s::integer[]) AS found

-- forget_ended --
WITH fragments AS (
    DELETE FROM ingest_pipeline.staged_fragment f USING ingest_pipeline.saga s
    WHERE s.id = f.saga AND s.generation = %(generation)s AND s.state NOT IN ('preparing', 'prepared', 'blocked') RETURNING 1
), documents AS (
    DELETE FROM ingest_pipeline.document d USING ingest_pipeline.saga s
    WHERE s.id = d.saga AND d.generation = %(generation)s AND d.published_version IS NULL
      AND s.state IN ('completed', 'compensated', 'failed', 'abandoned', 'adopted') RETURNING 1
), batches AS (
    DELETE FROM ingest_pipeline.embedded_batch b
    USING unnest(%(sagas)s::uuid[], %(ordinals)s::integer[]) AS spent (saga, ordinal)
    WHERE b.saga = spent.saga AND b.ordinal = spent.ordinal RETURNING 1
)
SELECT (SELECT count(*) FROM fragments) + (SELECT count(*) FROM documents) + (SELECT count(*) FROM batches) AS found

-- forget_fragments --
DELETE FROM ingest_pipeline.staged_fragment WHERE saga = %(saga)s

-- forget_batches --
DELETE FROM ingest_pipeline.embedded_batch WHERE saga = %(saga)s RETURNING ordinal

-- forget_documents --
DELETE FROM ingest_pipeline.document WHERE saga = %(saga)s AND published_version IS NULL

-- forget_batch --
DELETE FROM ingest_pipeline.embedded_batch
WHERE saga = %(saga)s AND ordinal = %(ordinal)s AND checksum = %(checksum)s RETURNING cardinality(text_hashes) AS texts

-- spooled_batches --
SELECT b.saga, b.ordinal FROM ingest_pipeline.embedded_batch b JOIN ingest_pipeline.saga s ON s.id = b.saga
WHERE s.generation = %(generation)s AND b.vectors IS NULL

-- lock_saga --
SELECT id FROM ingest_pipeline.saga WHERE id = %(saga)s FOR NO KEY UPDATE

-- batches_of --
SELECT ordinal FROM ingest_pipeline.embedded_batch WHERE saga = %(saga)s AND vectors IS NULL

-- recorded_texts --
-- Batches after the known ordinal of their saga.
SELECT b.saga, b.ordinal, b.text_hashes FROM ingest_pipeline.embedded_batch b
JOIN ingest_pipeline.saga s ON s.id = b.saga
LEFT JOIN unnest(%(sagas)s::uuid[], %(ordinals)s::integer[]) AS known (saga, ordinal) ON known.saga = b.saga
WHERE s.generation = %(generation)s AND b.embedding = %(embedding)s AND b.ordinal > coalesce(known.ordinal, -1)
ORDER BY b.saga, b.ordinal LIMIT %(limit)s

-- staged_texts --
SELECT DISTINCT ON (hash) hash AS text_hash, b.saga, b.ordinal, place - 1 AS index, b.checksum,
    substring(b.vectors FROM (place - 1)::int * %(width)s + 1 FOR %(width)s) AS vector
FROM unnest(%(sagas)s::uuid[], %(ordinals)s::integer[]) AS wanted (saga, ordinal)
JOIN ingest_pipeline.embedded_batch b ON b.saga = wanted.saga AND b.ordinal = wanted.ordinal,
unnest(b.text_hashes) WITH ORDINALITY AS h (hash, place)
WHERE hash = ANY(%(text_hashes)s)

-- has_concurrent_ingest --
SELECT EXISTS (
    SELECT 1 FROM ingest_pipeline.saga
    WHERE generation = %(generation)s AND state IN ('preparing', 'prepared') AND kind = 'ingest' AND id <> %(saga)s
) AS found

-- insert_batch_job --
INSERT INTO ingest_pipeline.batch_job (saga, generation, embedding, keys, text_hashes, texts_a_request, characters, writer)
VALUES (%(saga)s, %(generation)s, %(embedding)s, %(keys)s, %(text_hashes)s, %(texts_a_request)s, %(characters)s, %(writer)s)

-- renew_batch_job --
UPDATE ingest_pipeline.batch_job SET created_at = now() WHERE saga = %(saga)s AND state = 'submitting' RETURNING saga

-- mark_batch_job_submitted --
UPDATE ingest_pipeline.batch_job SET state = 'submitted', api_batch = %(api_batch)s, ended_at = NULL, error = NULL
WHERE saga = %(saga)s AND api_batch IS NULL

-- end_batch_job --
UPDATE ingest_pipeline.batch_job SET state = %(state)s, collected = %(collected)s, error = %(error)s, ended_at = now()
WHERE saga = %(saga)s AND state IN ('submitting', 'submitted') RETURNING saga

-- open_batch_jobs --
SELECT saga, embedding, keys, text_hashes, texts_a_request, characters, state, api_batch, writer, created_at,
    now() - created_at AS age, ended_at, collected, error
FROM ingest_pipeline.batch_job WHERE generation = %(generation)s AND state IN ('submitting', 'submitted') ORDER BY created_at

-- recent_batch_jobs --
SELECT o.saga, cardinality(o.keys) AS documents, cardinality(o.text_hashes) AS texts, o.state, o.api_batch, o.created_at,
    o.ended_at, o.collected, s.tokens, round(s.tokens * s.price / 1000000, 4) AS cost, s.currency, o.error
FROM ingest_pipeline.batch_job o JOIN ingest_pipeline.saga s ON s.id = o.saga
WHERE o.generation = %(generation)s ORDER BY o.created_at DESC LIMIT %(limit)s

-- published_texts --
-- At head if the text is there, otherwise at the last version that has it, because a compaction may have moved its rows
-- before. A text such as a licence may occur in 100,000 documents; only a few of them are examined.
SELECT wanted.text_hash, place.fragments, place.version
FROM unnest(%(text_hashes)s::uuid[]) AS wanted (text_hash)
CROSS JOIN LATERAL (
    SELECT seen.fragments,
        coalesce(seen.superseded_version - 1, k.head_version) AS version
    FROM (
        SELECT d.generation, d.fragments, d.superseded_version
        FROM (
            -- OFFSET 0 forces the index on text_hash: before ANALYZE the planner expects one or two chunks a document.
            SELECT c.saga, c.document, c.ordinal FROM ingest_pipeline.chunk c WHERE c.text_hash = wanted.text_hash OFFSET 0
        ) AS held CROSS JOIN LATERAL (
            SELECT * FROM ingest_pipeline.document own
            WHERE own.saga = held.saga AND own.key = held.document AND own.ranges IS NULL
            UNION ALL
            (SELECT * FROM ingest_pipeline.document edited
            WHERE edited.generation = %(generation)s AND edited.key = held.document AND edited.ranges IS NOT NULL
              AND edited.published_version IS NOT NULL AND EXISTS (
                SELECT 1 FROM unnest(edited.ranges) AS r
                WHERE r.saga = held.saga AND held.ordinal >= r.first AND held.ordinal < r.last)
            ORDER BY edited.superseded_version DESC NULLS FIRST LIMIT 1)
        ) AS d
        WHERE d.generation = %(generation)s AND d.published_version IS NOT NULL
          AND NOT d.fragments && %(without)s::bigint[]
        LIMIT 16
    ) AS seen JOIN ingest_pipeline.generation k ON k.name = seen.generation
    ORDER BY seen.superseded_version DESC NULLS FIRST LIMIT 1
) AS place

-- has_chunks --
SELECT EXISTS (
    SELECT 1 FROM ingest_pipeline.document
    WHERE generation = %(generation)s AND published_version IS NOT NULL AND chunk_count > 0
) AS found

-- record_failure --
INSERT INTO ingest_pipeline.failure AS f (generation, key, partition, etag, recipe, attempts, reason, unreadable, final, error)
VALUES (%(generation)s, %(key)s, %(partition)s, %(etag)s, %(recipe)s, 1, %(reason)s, %(unreadable)s, %(final)s, %(error)s)
ON CONFLICT (generation, key) DO UPDATE SET
    attempts = CASE WHEN (f.etag, f.recipe) = (excluded.etag, excluded.recipe) THEN f.attempts + 1 ELSE 1 END,
    partition = excluded.partition, etag = excluded.etag, recipe = excluded.recipe, reason = excluded.reason,
    unreadable = excluded.unreadable, final = excluded.final, error = excluded.error, failed_at = now()

-- read_failures --
SELECT f.key, f.partition, f.etag, f.recipe, f.attempts, f.reason, f.unreadable, f.final, f.error, f.since, f.failed_at,
    d.published_version
FROM ingest_pipeline.failure f
LEFT JOIN ingest_pipeline.head_document d ON d.generation = f.generation AND d.key = f.key
WHERE f.generation = %(generation)s ORDER BY f.key

-- forget_failures --
DELETE FROM ingest_pipeline.failure WHERE generation = %(generation)s

-- clear_failures --
DELETE FROM ingest_pipeline.failure
WHERE generation = %(generation)s AND key = ANY(ARRAY(SELECT unnest(%(keys)s::text[])))

-- record_run_failure --
INSERT INTO ingest_pipeline.run_failure AS f
    (generation, configuration, attempts, passing, error, failed_at, over_limit, over_limit_until)
SELECT name, %(configuration)s, 1, %(passing)s, %(error)s, now(), %(over_limit)s, %(over_limit_until)s
FROM ingest_pipeline.generation WHERE name = %(generation)s
ON CONFLICT (generation) DO UPDATE SET
    attempts = CASE WHEN f.configuration = excluded.configuration THEN f.attempts + 1 ELSE 1 END,
    configuration = excluded.configuration, passing = excluded.passing, error = excluded.error, failed_at = now(),
    over_limit = excluded.over_limit, over_limit_until = excluded.over_limit_until

-- forgive_runs --
INSERT INTO ingest_pipeline.run_failure AS f (generation, forgiven_at)
SELECT name, now() FROM ingest_pipeline.generation WHERE name = %(generation)s
ON CONFLICT (generation) DO UPDATE SET attempts = 0, forgiven_at = now()

-- read_run_failure --
SELECT configuration, attempts, passing, error, failed_at, over_limit, over_limit_until
FROM ingest_pipeline.run_failure WHERE generation = %(generation)s AND attempts > 0

-- count_deaths --
-- Ingestions whose writer died since the last published one.
SELECT count(*) AS deaths, max(ended_at) AS last_at FROM ingest_pipeline.saga
WHERE generation = %(generation)s AND state = 'abandoned' AND kind = 'ingest'
  AND ended_at > coalesce((
      SELECT ended_at FROM ingest_pipeline.saga
      WHERE generation = %(generation)s AND published_version IS NOT NULL AND kind = 'ingest'
      ORDER BY published_version DESC LIMIT 1), '-infinity')
  AND ended_at > coalesce(
      (SELECT forgiven_at FROM ingest_pipeline.run_failure WHERE generation = %(generation)s), '-infinity')

-- latest_documents --
-- The latest row of each document: the document at head, or its tombstone unless retention removed it.
SELECT key, partition, saga, removed, etag, size, content_hash, recipe, chunk_count, fragments, columns
FROM ingest_pipeline.latest_document WHERE generation = %(generation)s
  AND (%(partitions)s::text[] IS NULL OR partition = ANY(%(partitions)s))
  AND (%(keys)s::text[] IS NULL OR key = ANY(%(keys)s))
  AND key > %(after)s
ORDER BY key

-- count_documents --
-- Counts by generation. The view has the name of the corpus, which differs from that of a later generation.
SELECT count(*) AS found FROM ingest_pipeline.head_document WHERE generation = %(generation)s

-- count_published_by --
-- Documents that a process published, except those of some of its sagas.
SELECT count(*) AS found FROM ingest_pipeline.document d JOIN ingest_pipeline.saga s ON s.id = d.saga
WHERE s.writer = %(writer)s AND s.id <> ALL(%(sagas)s::uuid[]) AND d.published_version IS NOT NULL AND NOT d.removed

-- count_removed --
-- A document that was removed and added again in the meantime counts too.
SELECT count(DISTINCT document.key) AS found
FROM ingest_pipeline.saga JOIN ingest_pipeline.document ON document.saga = saga.id
WHERE saga.generation = %(generation)s AND saga.state = 'published' AND saga.retired_by IS NULL AND saga.kind = 'ingest'
  AND saga.ended_at > now() - %(within)s AND document.removed

-- first_partition --
SELECT partition FROM ingest_pipeline.head_document WHERE generation = %(generation)s
ORDER BY key LIMIT 1

-- all_partitions --
SELECT DISTINCT partition FROM ingest_pipeline.head_document WHERE generation = %(generation)s

-- partition_states --
-- Reads by generation, like count_documents.
SELECT partition, count(*) AS documents, sum(chunk_count)::bigint AS chunks, sum(character_count)::bigint AS characters,
    sum(size)::bigint AS bytes, max(published_version) AS published_version, min(etag) AS etag, min(recipe) AS recipe,
    encode(sha256(convert_to(string_agg(concat_ws(E'\x01', key, etag, recipe), E'\x02' ORDER BY key), 'UTF8')), 'hex')
        AS digest
FROM ingest_pipeline.head_document WHERE generation = %(generation)s
    AND partition = ANY(%(partitions)s)
GROUP BY partition

-- copy_documents --
COPY ingest_pipeline.document (generation, saga, recipe, key, partition, replaces, removed, etag, size, last_modified,
    character_count, tokens, seconds, chunk_count, embedded, cached, requests, retries)
FROM STDIN (FORMAT BINARY)

-- finish_documents --
UPDATE ingest_pipeline.document d
SET columns = f.columns, blocks = f.blocks, content_hash = f.content_hash, character_count = f.character_count, chunk_count = f.chunk_count,
    embedded = f.embedded, cached = f.cached, tokens = f.tokens, requests = f.requests, retries = f.retries, seconds = f.seconds
FROM unnest(%(key)s::text[], %(columns)s::jsonb[], %(blocks)s::bytea[], %(content_hash)s::text[], %(character_count)s::bigint[],
    %(chunk_count)s::integer[], %(embedded)s::integer[], %(cached)s::integer[], %(tokens)s::bigint[], %(requests)s::integer[], %(retries)s::integer[],
    %(seconds)s::double precision[])
    AS f (key, columns, blocks, content_hash, character_count, chunk_count, embedded, cached, tokens, requests, retries, seconds)
WHERE d.saga = %(saga)s AND d.key = f.key

-- share_chunks --
-- An edited document shares the chunk rows that the edit only moved. Ranges are in the order of the chunks.
UPDATE ingest_pipeline.document SET ranges = (
    SELECT array_agg((r.saga, r.first, r.last, r.ordinal_shift, r.offset_shift)::ingest_pipeline.chunk_range
        ORDER BY r.first + r.ordinal_shift)
    FROM unnest(%(sagas)s::uuid[], %(firsts)s::integer[], %(lasts)s::integer[], %(ordinal_shifts)s::integer[],
        %(offset_shifts)s::bigint[]) AS r (saga, first, last, ordinal_shift, offset_shift))
WHERE saga = %(saga)s AND key = %(key)s

-- copy_shared_chunks --
-- Gives a document rows of its own, as many as it has chunks.
INSERT INTO ingest_pipeline.chunk
    (saga, document, ordinal, id, start_offset, end_offset, text_hash, page, last_page, heading, columns)
SELECT saga, document, ordinal, id, start_offset, end_offset, text_hash, page, last_page, heading, columns
FROM ingest_pipeline.document_chunk WHERE saga = %(saga)s AND document = %(key)s
ON CONFLICT DO NOTHING

-- forget_ranges --
UPDATE ingest_pipeline.document SET ranges = NULL WHERE saga = %(saga)s AND key = %(key)s

-- read_blocks --
SELECT blocks FROM ingest_pipeline.document WHERE saga = %(saga)s AND key = %(key)s

-- read_ranges --
SELECT r.saga, r.first, r.last, r.ordinal_shift, r.offset_shift
FROM ingest_pipeline.document d CROSS JOIN LATERAL unnest(d.ranges) AS r
WHERE d.saga = %(saga)s AND d.key = %(key)s

-- chunks_in_ranges --
-- The chunks in some ranges of rows, with the places that the ranges give them.
SELECT c.id, c.document, c.ordinal + r.ordinal_shift AS ordinal, c.start_offset + r.offset_shift AS start_offset,
    c.end_offset + r.offset_shift AS end_offset, c.text_hash, c.saga, c.page, c.last_page, c.heading,
    coalesce(c.columns, '{}') AS columns
FROM unnest(%(sagas)s::uuid[], %(firsts)s::integer[], %(lasts)s::integer[], %(ordinal_shifts)s::integer[],
    %(offset_shifts)s::bigint[]) AS r (saga, first, last, ordinal_shift, offset_shift)
JOIN ingest_pipeline.chunk c
    ON c.saga = r.saga AND c.document = %(key)s AND c.ordinal >= r.first AND c.ordinal < r.last
ORDER BY 3

-- rows_of_texts --
-- The rows of a document's chunks with some texts, whichever of some sagas wrote them.
SELECT c.saga, c.ordinal, c.text_hash FROM ingest_pipeline.chunk c
WHERE c.text_hash = ANY(%(text_hashes)s::uuid[]) AND c.document = %(key)s AND c.saga = ANY(%(sagas)s::uuid[])

-- places_of --
-- Where the rows of some documents are at head.
SELECT k.head_version, d.key, d.fragments, d.chunk_count
FROM ingest_pipeline.generation k
LEFT JOIN (unnest(%(keys)s::text[], %(sagas)s::uuid[]) AS wanted (key, saga)
    JOIN ingest_pipeline.document d ON d.saga = wanted.saga AND d.key = wanted.key) ON d.generation = k.name
WHERE k.name = %(generation)s

-- drop_document --
DELETE FROM ingest_pipeline.document WHERE saga = %(saga)s AND key = %(key)s

-- copy_chunks --
COPY ingest_pipeline.chunk
    (saga, document, ordinal, id, start_offset, end_offset, text_hash, page, last_page, heading, columns)
FROM STDIN (FORMAT BINARY)

-- conflicting_documents --
-- A document without a latest row has no conflict: retention removed the tombstone that the saga would replace.
-- Here and in the other statements of a publication, ARRAY and OFFSET 0 let the planner only search an index by the keys
-- of the saga. During a first ingest it has no statistics, or those of a small table, and would read all documents.
SELECT latest.key
FROM (
    SELECT key, saga FROM ingest_pipeline.latest_document
    WHERE generation = (SELECT generation FROM ingest_pipeline.saga WHERE id = %(saga)s)
      AND key = ANY(ARRAY(SELECT key FROM ingest_pipeline.document WHERE saga = %(saga)s)) OFFSET 0
) AS latest
CROSS JOIN LATERAL (
    SELECT replaces FROM ingest_pipeline.document WHERE saga = %(saga)s AND key = latest.key OFFSET 0
) AS new
WHERE latest.saga <> coalesce(new.replaces, %(saga)s)
ORDER BY latest.key

-- erased_documents --
-- Documents of the saga that were erased. Its documents are read only if there was an erasure.
SELECT new.key
FROM ingest_pipeline.saga s
JOIN ingest_pipeline.generation k ON k.name = s.generation
JOIN ingest_pipeline.erasure e ON e.corpus = k.corpus
CROSS JOIN LATERAL (
    SELECT key, sha256(e.salt || convert_to(key, 'UTF8')) AS key_hash FROM ingest_pipeline.document
    WHERE saga = %(saga)s AND NOT removed OFFSET 0
) AS new
JOIN ingest_pipeline.erased_document d ON d.erasure = e.id AND d.key_hash = new.key_hash AND d.allowed_at IS NULL
WHERE s.id = %(saga)s
ORDER BY new.key

-- supersede_documents --
UPDATE ingest_pipeline.latest_document SET superseded_version = %(version)s
WHERE generation = (SELECT generation FROM ingest_pipeline.saga WHERE id = %(saga)s)
  AND key = ANY(ARRAY(SELECT key FROM ingest_pipeline.document WHERE saga = %(saga)s))
RETURNING key, fragments, chunk_count

-- publish_placed --
-- One update for both values, because each update that changes an index writes an entry into all indices of the table.
UPDATE ingest_pipeline.document SET published_version = %(version)s, fragments = %(fragments)s
WHERE saga = %(saga)s AND key = ANY(%(keys)s)

-- publish_documents --
-- The other documents of the saga, which have no rows in the table.
-- IS NULL would let the planner search document_unpublished, which has entries of all published rows until a VACUUM.
UPDATE ingest_pipeline.document SET published_version = %(version)s
WHERE saga = %(saga)s AND published_version IS DISTINCT FROM %(version)s

-- place_documents --
UPDATE ingest_pipeline.document SET fragments = %(fragments)s WHERE saga = %(saga)s AND key = ANY(%(keys)s)

-- move_rows --
UPDATE ingest_pipeline.latest_document
SET fragments = ARRAY(
    SELECT DISTINCT coalesce(moved.new, f)
    FROM unnest(fragments) AS f
    LEFT JOIN unnest(%(old)s::bigint[], %(new)s::bigint[]) AS moved (old, new) ON moved.old = f
    ORDER BY 1)
WHERE generation = %(generation)s AND key = ANY(%(keys)s::text[]) AND fragments && %(old)s::bigint[]

-- refresh_etag --
UPDATE ingest_pipeline.latest_document SET etag = %(etag)s, last_modified = %(last_modified)s
WHERE generation = %(generation)s AND key = %(key)s AND saga = %(saga)s

-- documents_at --
SELECT key, partition, saga, etag, size, last_modified, recipe, character_count, chunk_count, embedded, cached,
    fragments, published_version, columns
FROM ingest_pipeline.documents_at(%(generation)s, %(version)s)
WHERE %(keys)s::text[] IS NULL OR key = ANY(%(keys)s)
ORDER BY key

-- documents_after --
SELECT key, partition, saga, etag, size, last_modified, recipe, character_count, chunk_count, embedded, cached,
    fragments, published_version, columns
FROM ingest_pipeline.documents_at(%(generation)s, %(version)s)
WHERE key > %(after)s AND starts_with(key, %(prefix)s)
    AND (%(access)s::text IS NULL OR jsonb_exists_any(columns -> %(access)s, %(principals)s))
ORDER BY key LIMIT %(limit)s

-- documents_in_fragments --
SELECT key, fragments FROM ingest_pipeline.documents_at(%(generation)s, %(version)s)
WHERE fragments && %(fragments)s::bigint[]
ORDER BY key

-- chunks_at --
SELECT c.id, c.document, c.ordinal, c.start_offset, c.end_offset, c.text_hash, c.saga, c.page, c.last_page, c.heading,
    coalesce(c.columns, '{}') AS columns
FROM ingest_pipeline.chunks_at(%(generation)s, %(version)s) c
WHERE %(keys)s::text[] IS NULL OR c.document = ANY(%(keys)s)
ORDER BY c.document, c.ordinal

-- expected_documents --
SELECT key, hashtextextended(key, 0) AS place, chunk_count, columns
FROM ingest_pipeline.documents_at(%(generation)s, %(version)s)

-- chunk_columns --
SELECT hashtextextended(c.document, 0) AS place, c.id, c.columns
FROM ingest_pipeline.chunks_at(%(generation)s, %(version)s) c
WHERE c.columns <> '{}'

-- has_chunk_columns --
SELECT EXISTS (
    SELECT 1 FROM ingest_pipeline.chunks_at(%(generation)s, %(version)s) c
    WHERE jsonb_exists_any(c.columns, %(names)s)
) AS found

-- chunk_columns_in --
-- Rows that a document shares with its earlier ones have no values: enriched documents are ingested as a whole.
SELECT c.id, c.columns
FROM ingest_pipeline.documents_at(%(generation)s, %(version)s) d
JOIN ingest_pipeline.chunk c ON c.saga = d.saga AND c.document = d.key
WHERE d.fragments && %(fragments)s::bigint[] AND c.columns <> '{}'

-- chunk_columns_of_copies --
SELECT c.id, c.columns
FROM ingest_pipeline.document new JOIN ingest_pipeline.chunk c ON c.saga = new.copy_of AND c.document = new.key
WHERE new.saga = %(saga)s AND new.key = ANY(%(keys)s) AND c.columns <> '{}'

-- expected_chunks --
COPY (
    SELECT hashtextextended(c.document, 0), c.id, c.ordinal, c.start_offset, c.end_offset, c.text_hash, c.saga,
        coalesce(c.page, 0), coalesce(c.last_page, 0),
        substring(sha256(convert_to(coalesce(c.heading, ''), 'UTF8')) FOR 16)
    FROM ingest_pipeline.chunks_at(%(generation)s, %(version)s) c
) TO STDOUT (FORMAT BINARY)

-- latest_changes --
SELECT d.key, d.partition, d.saga, d.removed, d.etag, d.recipe, d.chunk_count, d.embedded, d.cached, d.tokens,
    d.tokens * s.price / 1000000 AS cost, s.currency, d.requests, d.retries, d.seconds, d.published_version,
    d.superseded_version, s.ended_at AS published_at, s.run_id, s.kind, s.target_version, s.retired_by
FROM ingest_pipeline.latest_document d JOIN ingest_pipeline.saga s ON s.id = d.saga
WHERE d.saga = %(saga)s
ORDER BY d.key

-- document_history --
SELECT d.key, d.partition, d.saga, d.removed, d.etag, d.recipe, d.chunk_count, d.embedded, d.cached, d.tokens,
    d.tokens * s.price / 1000000 AS cost, s.currency, d.requests, d.retries, d.seconds, d.published_version,
    d.superseded_version, s.ended_at AS published_at, s.run_id, s.kind, s.target_version, s.retired_by
FROM ingest_pipeline.document d JOIN ingest_pipeline.saga s ON s.id = d.saga
WHERE d.generation = %(generation)s AND d.published_version IS NOT NULL AND (%(key)s::text IS NULL OR d.key = %(key)s)
ORDER BY d.published_version DESC, d.key LIMIT %(limit)s

-- matching_documents --
SELECT key FROM ingest_pipeline.documents_at(%(generation)s, %(version)s)
WHERE key LIKE ALL(%(key)s::text[]) AND partition LIKE ALL(%(partition)s::text[])
  AND (%(least_size)s::bigint IS NULL OR size >= %(least_size)s)
  AND (%(greatest_size)s::bigint IS NULL OR size <= %(greatest_size)s)
  AND (%(least_chunk_count)s::bigint IS NULL OR chunk_count >= %(least_chunk_count)s)
  AND (%(greatest_chunk_count)s::bigint IS NULL OR chunk_count <= %(greatest_chunk_count)s)
  AND (%(least_published_version)s::bigint IS NULL OR published_version >= %(least_published_version)s)
  AND (%(greatest_published_version)s::bigint IS NULL OR published_version <= %(greatest_published_version)s)
  AND (%(least_last_modified)s::timestamptz IS NULL OR last_modified >= %(least_last_modified)s)
  AND (%(greatest_last_modified)s::timestamptz IS NULL OR last_modified <= %(greatest_last_modified)s)
ORDER BY key

-- publication_history --
SELECT s.published_version AS version, s.ended_at AS published_at, s.kind, s.target_version, brought.documents,
    brought.removed, brought.chunks, s.embedded, brought.cached,
    s.tokens, s.tokens * s.price / 1000000 AS cost, s.currency,
    s.extension_tokens AS enricher_tokens, s.extension_requests AS enricher_requests,
    (
        SELECT coalesce(jsonb_object_agg(c.currency, c.amount), '{}') FROM (
            SELECT u.currency, sum(u.amount)::double precision AS amount FROM ingest_pipeline.extension_usage u
            WHERE s.extension_requests > 0 AND u.saga = s.id AND u.currency IS NOT NULL GROUP BY u.currency
        ) AS c
    ) AS enricher_costs,
    s.id AS saga, s.run_id, s.retired_by
FROM (
    -- The condition on published_version is redundant, but lets the index skip sagas without a version.
    SELECT * FROM ingest_pipeline.saga
    WHERE generation = %(generation)s AND state = 'published' AND published_version IS NOT NULL
    ORDER BY published_version DESC LIMIT %(limit)s
) AS s
CROSS JOIN LATERAL (
    SELECT coalesce(min(r.documents), count(d.key) FILTER (WHERE NOT d.removed)) AS documents,
        coalesce(min(r.removed), count(d.key) FILTER (WHERE d.removed)) AS removed,
        coalesce(min(r.chunks), sum(d.chunk_count), 0)::bigint AS chunks,
        coalesce(min(r.cached), sum(d.cached), 0)::bigint AS cached
    FROM (SELECT 1) AS one
    LEFT JOIN ingest_pipeline.retired_publication r ON r.saga = s.id
    LEFT JOIN ingest_pipeline.document d ON r.saga IS NULL AND d.saga = s.id AND d.published_version IS NOT NULL
) AS brought
ORDER BY s.published_version DESC

-- is_retained --
SELECT EXISTS (
    SELECT 1 FROM ingest_pipeline.saga s
    WHERE s.generation = %(generation)s AND s.state = 'published' AND s.published_version = %(version)s AND s.retired_by IS NULL
) AS found

-- retired_by --
SELECT retired_by FROM ingest_pipeline.saga
WHERE generation = %(generation)s AND state = 'published' AND published_version = %(version)s

-- is_publication --
SELECT EXISTS (
    SELECT 1 FROM ingest_pipeline.saga
    WHERE generation = %(generation)s AND state = 'published' AND published_version = %(version)s
) AS found

-- known_names --
SELECT DISTINCT name
FROM ingest_pipeline.document d, unnest(%(names)s::text[]) AS wanted (name)
WHERE d.generation = %(generation)s AND d.published_version IS NOT NULL AND wanted.name IN (d.key, d.partition)

-- differing_documents --
-- Documents that differ between a version and head. Documents with equal bytes, recipes and columns have equal rows,
-- whichever saga made them.
SELECT key, coalesce(head.partition, old.partition) AS partition, head.saga AS replaces, old.saga AS copy_of,
    coalesce(old.chunk_count, 0) AS chunk_count, coalesce(old.fragments, '{}') AS fragments,
    CASE WHEN head.removed THEN 0 ELSE coalesce(head.chunk_count, 0) END AS chunks_at_head,
    coalesce(NOT head.removed, false) AS is_latest
FROM ingest_pipeline.documents_at(%(generation)s, %(version)s) AS old
FULL JOIN (
    SELECT * FROM ingest_pipeline.latest_document WHERE generation = %(generation)s
) AS head USING (key)
WHERE old.saga IS DISTINCT FROM head.saga AND (old.saga IS NOT NULL OR NOT head.removed)
  AND (head.removed OR (old.content_hash, old.recipe, old.columns)
      IS DISTINCT FROM (head.content_hash, head.recipe, head.columns))
  AND (%(names)s::text[] IS NULL OR key = ANY(%(names)s) OR coalesce(head.partition, old.partition) = ANY(%(names)s))
ORDER BY key

-- insert_copies --
INSERT INTO ingest_pipeline.document
    (generation, key, saga, partition, replaces, removed, etag, size, last_modified, content_hash, recipe, character_count,
     chunk_count, cached, copy_of, columns, blocks)
SELECT %(generation)s, wanted.key, %(saga)s, wanted.partition, wanted.replaces, old.saga IS NULL, old.etag, old.size,
    old.last_modified, old.content_hash, old.recipe, coalesce(old.character_count, 0), coalesce(old.chunk_count, 0),
    coalesce(old.chunk_count, 0), old.saga, coalesce(old.columns, '{}'), old.blocks
FROM unnest(%(keys)s::text[], %(partitions)s::text[], %(replaces)s::uuid[], %(copies_of)s::uuid[])
    AS wanted (key, partition, replaces, copy_of)
LEFT JOIN ingest_pipeline.document old ON old.saga = wanted.copy_of AND old.key = wanted.key

-- insert_column_changes --
-- The bytes are those of the row at head, and so are the chunks. Only the columns, and the enrichers of the recipe, are new.
INSERT INTO ingest_pipeline.document
    (generation, key, saga, partition, replaces, etag, size, last_modified, content_hash, recipe, character_count,
     chunk_count, cached, copy_of, columns, blocks)
SELECT old.generation, old.key, %(saga)s, old.partition, old.saga, new.etag, new.size, new.last_modified,
    old.content_hash, new.recipe, old.character_count, old.chunk_count, old.chunk_count, old.saga, new.columns, old.blocks
FROM unnest(%(keys)s::text[], %(replaces)s::uuid[], %(etags)s::text[], %(sizes)s::bigint[],
    %(last_modified)s::timestamptz[], %(recipes)s::text[], %(columns)s::jsonb[])
    AS new (key, replaces, etag, size, last_modified, recipe, columns)
JOIN ingest_pipeline.document old ON old.saga = new.replaces AND old.key = new.key
RETURNING key, character_count, chunk_count

-- columns_of_saga --
SELECT key, columns FROM ingest_pipeline.document WHERE saga = %(saga)s

-- read_declaration --
SELECT columns FROM ingest_pipeline.corpus WHERE name = %(corpus)s

-- lock_declaration --
SELECT columns FROM ingest_pipeline.corpus WHERE name = %(corpus)s FOR NO KEY UPDATE

-- set_declaration --
UPDATE ingest_pipeline.corpus SET columns = %(columns)s WHERE name = %(corpus)s

-- read_access --
SELECT access, require_principals FROM ingest_pipeline.corpus WHERE name = %(corpus)s

-- set_access --
UPDATE ingest_pipeline.corpus SET access = %(access)s, require_principals = %(require_principals)s
WHERE name = %(corpus)s AND (access, require_principals) IS DISTINCT FROM (%(access)s, %(require_principals)s)

-- documents_without_list --
-- Documents at head that no search finds, because they have no list of principals.
SELECT key, count(*) OVER () AS found FROM ingest_pipeline.head_document
WHERE generation = %(generation)s AND coalesce(columns -> %(access)s, '[]') = '[]'
ORDER BY key LIMIT %(limit)s

-- copy_chunk_rows --
WITH copied AS (
    SELECT new.saga, new.key, old.saga AS old_saga, old.ranges
    FROM ingest_pipeline.document new
    JOIN ingest_pipeline.document old ON old.saga = new.copy_of AND old.key = new.key
    WHERE new.saga = %(saga)s AND new.key = ANY(%(keys)s)
)
INSERT INTO ingest_pipeline.chunk
    (saga, document, ordinal, id, start_offset, end_offset, text_hash, page, last_page, heading, columns)
SELECT d.saga, d.key, c.ordinal, c.id, c.start_offset, c.end_offset, c.text_hash, c.page, c.last_page, c.heading,
    c.columns
FROM copied d JOIN ingest_pipeline.chunk c ON c.saga = d.old_saga AND c.document = d.key
WHERE d.ranges IS NULL
UNION ALL
SELECT d.saga, d.key, c.ordinal + r.ordinal_shift, c.id, c.start_offset + r.offset_shift, c.end_offset + r.offset_shift,
    c.text_hash, c.page, c.last_page, c.heading, c.columns
FROM copied d CROSS JOIN LATERAL unnest(d.ranges) AS r
JOIN ingest_pipeline.chunk c ON c.saga = r.saga AND c.document = d.key AND c.ordinal >= r.first AND c.ordinal < r.last
WHERE d.ranges IS NOT NULL

-- hold_documents --
-- The object in the source is the one that an earlier hold names, otherwise the one of the row at head.
INSERT INTO ingest_pipeline.hold AS h (generation, key, partition, etag, size, content_hash, recipe, saga)
SELECT new.generation, new.key, new.partition, source.etag, source.size, source.content_hash, wanted.recipe, new.saga
FROM ingest_pipeline.document new
LEFT JOIN LATERAL (
    SELECT etag, size, content_hash FROM ingest_pipeline.document WHERE saga = new.replaces AND key = new.key OFFSET 0
) AS replaced ON true
LEFT JOIN LATERAL (
    SELECT key, etag, size, content_hash FROM ingest_pipeline.hold
    WHERE generation = new.generation AND key = new.key OFFSET 0
) AS before ON true
CROSS JOIN LATERAL (
    SELECT CASE WHEN before.key IS NULL THEN replaced.etag ELSE before.etag END AS etag,
        CASE WHEN before.key IS NULL THEN replaced.size ELSE before.size END AS size,
        CASE WHEN before.key IS NULL THEN replaced.content_hash ELSE before.content_hash END AS content_hash
) AS source
CROSS JOIN LATERAL (
    SELECT coalesce((SELECT own.recipe FROM unnest(%(suffixes)s::text[], %(recipes)s::text[]) AS own (suffix, recipe)
        WHERE own.suffix = lower(substring(new.key FROM '[^/](\.[^./]+)$'))), %(recipe)s) AS recipe
) AS wanted
WHERE new.saga = %(saga)s
  AND (new.etag IS DISTINCT FROM source.etag OR (new.etag IS NOT NULL AND new.recipe <> wanted.recipe))
ON CONFLICT (generation, key) DO UPDATE SET partition = excluded.partition, etag = excluded.etag, size = excluded.size,
    content_hash = excluded.content_hash, recipe = excluded.recipe, saga = excluded.saga, held_at = excluded.held_at

-- release_superseded --
-- Holds on documents of the saga, except those that the saga itself made.
DELETE FROM ingest_pipeline.hold
WHERE generation = (SELECT generation FROM ingest_pipeline.saga WHERE id = %(saga)s) AND saga <> %(saga)s
  AND key = ANY(ARRAY(SELECT key FROM ingest_pipeline.document WHERE saga = %(saga)s))

-- release_named --
DELETE FROM ingest_pipeline.hold
WHERE generation = %(generation)s AND (key = ANY(%(names)s) OR partition = ANY(%(names)s)) RETURNING key

-- release_known --
-- A later rollback may have made another hold on the same document, which remains.
DELETE FROM ingest_pipeline.hold h USING unnest(%(keys)s::text[], %(sagas)s::uuid[]) AS known (key, saga)
WHERE h.generation = %(generation)s AND h.key = known.key AND h.saga = known.saga

-- refresh_hold --
UPDATE ingest_pipeline.hold SET etag = %(etag)s WHERE generation = %(generation)s AND key = %(key)s

-- read_holds --
SELECT h.key, h.partition, h.etag, h.size, h.content_hash, h.recipe, h.saga, h.held_at, s.target_version AS version
FROM ingest_pipeline.hold h JOIN ingest_pipeline.saga s ON s.id = h.saga
WHERE h.generation = %(generation)s AND (%(keys)s::text[] IS NULL OR h.key = ANY(%(keys)s)) ORDER BY h.key

-- corpus_totals --
SELECT count(*) AS documents, coalesce(sum(chunk_count), 0)::bigint AS chunks,
    coalesce(sum(character_count), 0)::bigint AS characters, count(DISTINCT partition) AS partitions
FROM ingest_pipeline.head_document WHERE generation = %(generation)s

-- corpus_spending --
-- All sagas count, whatever their outcome: failed and killed sagas are billed too.
SELECT coalesce(sum(requests), 0)::bigint AS requests, coalesce(sum(retries), 0)::bigint AS retries,
    coalesce(sum(tokens), 0)::bigint AS tokens, coalesce(sum(unusable_tokens), 0)::bigint AS unusable_tokens,
    coalesce(sum(embedded), 0)::bigint AS embedded,
    coalesce(sum(extension_tokens), 0)::bigint AS enricher_tokens,
    coalesce(sum(extension_requests), 0)::bigint AS enricher_requests,
    coalesce(sum(api_seconds), 0) AS api_seconds, count(*) FILTER (WHERE state = 'published') AS publications,
    count(*) FILTER (WHERE state = 'compensated') AS compensated
FROM ingest_pipeline.saga WHERE generation = %(generation)s

-- run_progress --
SELECT count(*) AS documents, count(d.content_hash) AS prepared, count(d.published_version) AS published,
    count(*) FILTER (WHERE d.removed AND d.published_version IS NOT NULL) AS removed,
    coalesce(sum(d.chunk_count) FILTER (WHERE d.published_version IS NOT NULL), 0)::bigint AS chunks,
    coalesce(sum(d.cached) FILTER (WHERE d.published_version IS NOT NULL), 0)::bigint AS cached
FROM ingest_pipeline.document d JOIN ingest_pipeline.saga s ON s.id = d.saga WHERE s.run_id = %(run_id)s

-- run_spending --
SELECT coalesce(sum(embedded), 0)::bigint AS embedded, coalesce(sum(tokens), 0)::bigint AS tokens,
    coalesce(sum(requests), 0)::bigint AS requests, coalesce(sum(retries), 0)::bigint AS retries,
    coalesce(sum(extension_tokens), 0)::bigint AS enricher_tokens,
    coalesce(sum(extension_requests), 0)::bigint AS enricher_requests,
    coalesce(sum(api_seconds), 0) AS api_seconds,
    coalesce(extract(epoch FROM max(coalesce(ended_at, seen_at)) - min(started_at)), 0)::double precision AS seconds,
    count(published_version) AS publications, coalesce(max(published_version), 0) AS version
FROM ingest_pipeline.saga WHERE run_id = %(run_id)s

-- costs --
-- Costs of embedding and of the user's enrichers, by currency and day of the price. No currency: no price was configured
-- when the tokens were billed. A currency without a day: an enricher reported the cost.
WITH sagas AS (
    SELECT id, tokens, price, currency, price_as_of FROM ingest_pipeline.saga
    WHERE (%(generation)s::text IS NULL OR generation = %(generation)s) AND (%(run_id)s::text IS NULL OR run_id = %(run_id)s)
), spent AS (
    SELECT currency, price_as_of, tokens, tokens * price / 1000000 AS amount FROM sagas WHERE tokens > 0
    UNION ALL
    SELECT u.currency, u.price_as_of, u.tokens, u.amount FROM ingest_pipeline.extension_usage u JOIN sagas s ON s.id = u.saga
    WHERE u.tokens > 0 OR u.amount IS NOT NULL
)
SELECT currency, price_as_of AS as_of, sum(tokens)::bigint AS tokens, sum(amount) AS amount
FROM spent GROUP BY currency, price_as_of ORDER BY currency, price_as_of

-- token_ratio --
SELECT coalesce(sum(tokens), 0)::bigint AS tokens, coalesce(sum(embedded_characters), 0)::bigint AS characters
FROM ingest_pipeline.saga WHERE generation = %(generation)s AND tokens > 0

-- document_ratios --
-- Bytes, characters and chunks of the documents at head, by recipe and by extension of the keys.
SELECT recipe, coalesce(lower(substring(key FROM '\.([^./]+)$')), '') AS format, count(*) AS documents,
    sum(size)::bigint AS bytes, sum(character_count)::bigint AS characters, sum(chunk_count)::bigint AS chunks
FROM ingest_pipeline.head_document WHERE generation = %(generation)s
GROUP BY 1, 2

-- adopt_sagas --
-- The publications of these sagas are in the table, and a rebuild of the catalog takes them over.
UPDATE ingest_pipeline.saga SET state = 'adopted', ended_at = coalesce(ended_at, now()), error = %(error)s
WHERE generation = %(generation)s AND id = ANY(%(ids)s) AND state NOT IN ('published', 'completed')

-- set_installation --
-- For a database without a corpus, which takes over the identity of the lost one.
UPDATE ingest_pipeline.installation SET id = %(id)s WHERE NOT EXISTS (SELECT 1 FROM ingest_pipeline.generation)

-- known_pairs --
SELECT d.key, d.published_version IS NOT NULL AS was_published
FROM unnest(%(keys)s::text[], %(sagas)s::uuid[]) AS wanted (key, saga)
JOIN ingest_pipeline.document d ON d.saga = wanted.saga AND d.key = wanted.key

-- forget_pairs --
DELETE FROM ingest_pipeline.document d USING unnest(%(keys)s::text[], %(sagas)s::uuid[]) AS wanted (key, saga)
WHERE d.saga = wanted.saga AND d.key = wanted.key AND d.published_version IS NULL

-- stage_rebuilt --
-- The rows have no ETag, which marks documents whose bytes are unknown. The next ingest therefore reads them.
INSERT INTO ingest_pipeline.document
    (generation, key, saga, partition, recipe, chunk_count, cached, etag, content_hash, size, last_modified, columns)
SELECT %(generation)s, key, saga, partition, recipe, chunk_count, chunk_count, '', '', 0, %(never)s, columns
FROM unnest(%(keys)s::text[], %(sagas)s::uuid[], %(partitions)s::text[], %(recipes)s::text[], %(counts)s::integer[],
    %(columns)s::jsonb[])
    AS found (key, saga, partition, recipe, chunk_count, columns)

-- chunk_places --
WITH wanted AS (
    SELECT d.saga, d.key, d.ranges
    FROM unnest(%(keys)s::text[], %(sagas)s::uuid[]) AS one (key, saga)
    JOIN ingest_pipeline.document d ON d.saga = one.saga AND d.key = one.key
)
SELECT c.document, c.ordinal, c.start_offset, c.end_offset, c.text_hash
FROM wanted d JOIN ingest_pipeline.chunk c ON c.saga = d.saga AND c.document = d.key
WHERE d.ranges IS NULL
UNION ALL
SELECT c.document, c.ordinal + r.ordinal_shift, c.start_offset + r.offset_shift, c.end_offset + r.offset_shift, c.text_hash
FROM wanted d CROSS JOIN LATERAL unnest(d.ranges) AS r
JOIN ingest_pipeline.chunk c ON c.saga = r.saga AND c.document = d.key AND c.ordinal >= r.first AND c.ordinal < r.last
WHERE d.ranges IS NOT NULL
ORDER BY 1, 2

-- note_facts --
UPDATE ingest_pipeline.document d SET etag = f.etag, size = f.size, last_modified = f.last_modified,
    content_hash = f.content_hash, character_count = f.character_count
FROM unnest(%(key)s::text[], %(saga)s::uuid[], %(etag)s::text[], %(size)s::bigint[], %(last_modified)s::timestamptz[],
    %(content_hash)s::text[], %(character_count)s::bigint[])
    AS f (key, saga, etag, size, last_modified, content_hash, character_count)
WHERE d.saga = f.saga AND d.key = f.key

-- supersede_keys --
UPDATE ingest_pipeline.latest_document SET superseded_version = %(version)s
WHERE generation = %(generation)s AND key = ANY(%(keys)s)

-- revive_pairs --
UPDATE ingest_pipeline.document d SET superseded_version = NULL
FROM unnest(%(keys)s::text[], %(sagas)s::uuid[]) AS wanted (key, saga) WHERE d.saga = wanted.saga AND d.key = wanted.key

-- publish_pairs --
UPDATE ingest_pipeline.document d SET published_version = %(version)s
FROM unnest(%(keys)s::text[], %(sagas)s::uuid[]) AS wanted (key, saga) WHERE d.saga = wanted.saga AND d.key = wanted.key

-- insert_tombstones --
INSERT INTO ingest_pipeline.document (generation, key, saga, partition, removed, published_version)
SELECT %(generation)s, key, %(saga)s, partition, true, %(version)s
FROM unnest(%(keys)s::text[], %(partitions)s::text[]) AS gone (key, partition)

-- published_sagas_of --
SELECT id, published_version FROM ingest_pipeline.saga
WHERE generation = %(generation)s AND state = 'published' AND retired_by IS NULL

-- record_comparison --
-- The time of a change is not known for documents that the source lacks. They count from the comparison that found them.
INSERT INTO ingest_pipeline.source_comparison AS c (generation, compared_at, behind, behind_since)
SELECT name, now(), %(behind)s,
    CASE WHEN %(behind)s > 0 THEN greatest(coalesce(%(oldest)s::timestamptz, now()), created_at) END
FROM ingest_pipeline.generation WHERE name = %(generation)s
ON CONFLICT (generation) DO UPDATE SET compared_at = now(), behind = excluded.behind,
    behind_since = CASE WHEN excluded.behind > 0 THEN greatest(
        coalesce(c.behind_since, c.compared_at), coalesce(%(oldest)s::timestamptz, c.behind_since, now())) END

-- publication_lag --
SELECT extract(epoch FROM max(s.ended_at - greatest(d.last_modified, g.created_at)))::float8 AS seconds
FROM ingest_pipeline.saga s
JOIN ingest_pipeline.generation g ON g.name = s.generation
JOIN ingest_pipeline.document d ON d.saga = s.id AND NOT d.removed
WHERE s.id = %(saga)s AND s.kind = 'ingest'

-- gauges_of_heads --
SELECT g.corpus, g.name AS generation, g.head_version,
    extract(epoch FROM s.ended_at)::float8 AS head_time, coalesce(d.documents, 0) AS documents,
    coalesce(d.chunks, 0) AS chunks, coalesce(f.attempts, 0) AS run_failures,
    c.behind, extract(epoch FROM c.compared_at)::float8 AS compared_time,
    CASE WHEN c.behind IS NOT NULL
        THEN coalesce(extract(epoch FROM greatest(now() - c.behind_since, interval '0')), 0)::float8 END AS lag
FROM ingest_pipeline.generation g
LEFT JOIN ingest_pipeline.saga s ON s.id = g.head_saga
LEFT JOIN (
    SELECT generation, count(*) AS documents, sum(chunk_count)::bigint AS chunks
    FROM ingest_pipeline.head_document GROUP BY generation
) d ON d.generation = g.name
LEFT JOIN ingest_pipeline.run_failure f ON f.generation = g.name
LEFT JOIN ingest_pipeline.source_comparison c ON c.generation = g.name
WHERE g.state = 'current' ORDER BY g.corpus

-- gauges_of_documents --
-- Here and below, a state without rows is 0, so that graphs have no gaps.
SELECT g.corpus, wanted.state, coalesce(sum(found.documents), 0)::bigint AS documents
FROM ingest_pipeline.generation g
CROSS JOIN unnest(ARRAY['failing', 'quarantined', 'unreadable', 'on_hold', 'in_batch_job']) wanted (state)
LEFT JOIN (
    SELECT generation, CASE WHEN unreadable THEN 'unreadable' WHEN final THEN 'quarantined' ELSE 'failing' END AS state,
        count(*) AS documents
    FROM ingest_pipeline.failure GROUP BY 1, 2
    UNION ALL SELECT generation, 'on_hold', count(*) FROM ingest_pipeline.hold GROUP BY 1
    UNION ALL SELECT generation, 'in_batch_job', sum(cardinality(keys)) FROM ingest_pipeline.batch_job
        WHERE state IN ('submitting', 'submitted') GROUP BY 1
) found ON found.generation = g.name AND found.state = wanted.state
WHERE g.state = 'current' GROUP BY 1, 2

-- gauges_of_sagas --
SELECT g.corpus, wanted.state, count(s.id) AS sagas
FROM ingest_pipeline.generation g
CROSS JOIN unnest(ARRAY['running', 'in_doubt']) wanted (state)
LEFT JOIN ingest_pipeline.saga s ON s.generation = g.name AND s.state IN ('preparing', 'prepared')
    AND (s.seen_at < now() - %(silence)s * interval '1 second') = (wanted.state = 'in_doubt')
WHERE g.state <> 'dropped' GROUP BY 1, 2

-- gauges_of_ended_sagas --
SELECT g.corpus, s.kind, s.state::text AS state, count(*) AS sagas
FROM ingest_pipeline.saga s JOIN ingest_pipeline.generation g ON g.name = s.generation
WHERE s.state NOT IN ('preparing', 'prepared') GROUP BY 1, 2, 3

-- gauges_of_usage --
SELECT g.corpus, coalesce(sum(s.tokens), 0)::bigint AS tokens, coalesce(sum(s.requests), 0)::bigint AS requests,
    coalesce(sum(s.retries), 0)::bigint AS retries, coalesce(sum(s.extension_tokens), 0)::bigint AS enricher_tokens
FROM ingest_pipeline.saga s JOIN ingest_pipeline.generation g ON g.name = s.generation GROUP BY 1

-- gauges_of_costs --
SELECT corpus, currency, sum(amount)::float8 AS amount FROM (
    SELECT g.corpus, s.currency, s.tokens * s.price / 1000000 AS amount
    FROM ingest_pipeline.saga s JOIN ingest_pipeline.generation g ON g.name = s.generation
    WHERE s.tokens > 0 AND s.price IS NOT NULL
    UNION ALL
    SELECT g.corpus, u.currency, u.amount FROM ingest_pipeline.extension_usage u
    JOIN ingest_pipeline.saga s ON s.id = u.saga JOIN ingest_pipeline.generation g ON g.name = s.generation
    WHERE u.amount IS NOT NULL
) spent WHERE currency IS NOT NULL GROUP BY 1, 2

-- gauges_of_batch_jobs --
SELECT g.corpus, wanted.state, count(b.saga) AS jobs, coalesce(sum(cardinality(b.text_hashes)), 0)::bigint AS texts,
    coalesce(extract(epoch FROM now() - min(b.created_at)), 0)::float8 AS oldest
FROM ingest_pipeline.generation g
CROSS JOIN unnest(ARRAY['submitting', 'submitted']) wanted (state)
LEFT JOIN ingest_pipeline.batch_job b ON b.generation = g.name AND b.state = wanted.state
WHERE g.state <> 'dropped' GROUP BY 1, 2

-- are_runs_visible --
SELECT EXISTS (
    SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'ingest_pipeline_dagster' AND c.relname = 'runs'
      AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
) AS found

-- gauges_of_runs --
SELECT wanted.status, count(r.status) AS runs
FROM unnest(ARRAY['QUEUED', 'NOT_STARTED', 'STARTING', 'STARTED', 'CANCELING']) wanted (status)
LEFT JOIN ingest_pipeline_dagster.runs r ON r.status = wanted.status GROUP BY 1

-- insert_erasure --
INSERT INTO ingest_pipeline.erasure (id, corpus, reason, salt, writer, keys, fingerprints)
VALUES (%(id)s, %(corpus)s, %(reason)s, %(salt)s, %(writer)s, %(keys)s, %(fingerprints)s)

-- insert_erased_documents --
INSERT INTO ingest_pipeline.erased_document (erasure, key_hash) SELECT %(id)s, unnest(%(hashes)s::bytea[])

-- copy_erasure --
-- An erasure that only the table remembers, after a backup of the database was restored.
INSERT INTO ingest_pipeline.erasure (id, corpus, reason, salt, writer, requested_at)
VALUES (%(id)s, %(corpus)s, %(reason)s, %(salt)s, %(writer)s, %(requested_at)s) ON CONFLICT DO NOTHING RETURNING id

-- erasure_salt --
SELECT salt FROM ingest_pipeline.erasure WHERE corpus = %(corpus)s ORDER BY requested_at DESC LIMIT 1

-- read_erasures --
SELECT id, corpus, reason, salt, writer, requested_at, seen_at, keys, fingerprints, fingerprint_count, found, files,
    tables, erased_at,
    (SELECT coalesce(array_agg(d.key_hash ORDER BY d.key_hash), '{}') FROM ingest_pipeline.erased_document d
     WHERE d.erasure = e.id AND d.allowed_at IS NULL) AS key_hashes
FROM ingest_pipeline.erasure e
WHERE corpus = %(corpus)s AND (erased_at IS NULL OR NOT %(unfinished)s) AND (%(id)s::uuid IS NULL OR id = %(id)s)
ORDER BY requested_at, id

-- erased_keys --
SELECT e.salt, array_agg(d.key_hash) AS hashes
FROM ingest_pipeline.erasure e JOIN ingest_pipeline.erased_document d ON d.erasure = e.id AND d.allowed_at IS NULL
WHERE e.corpus = %(corpus)s GROUP BY e.salt

-- allow_erased --
UPDATE ingest_pipeline.erased_document d SET allowed_at = now() FROM ingest_pipeline.erasure e
WHERE e.id = d.erasure AND e.corpus = %(corpus)s AND d.allowed_at IS NULL AND e.erased_at IS NOT NULL
  AND d.key_hash = sha256(e.salt || convert_to(%(key)s, 'UTF8'))
RETURNING d.erasure

-- take_erasure --
UPDATE ingest_pipeline.erasure SET writer = %(writer)s, seen_at = now(), erased_at = NULL,
    keys = coalesce(%(keys)s::text[], keys), fingerprints = coalesce(%(fingerprints)s::bytea, fingerprints)
WHERE id = %(id)s

-- touch_erasure --
UPDATE ingest_pipeline.erasure SET seen_at = now() WHERE id = %(id)s

-- note_search --
-- From here on the ledger has no key of the documents.
UPDATE ingest_pipeline.erasure SET keys = NULL, fingerprints = NULL, fingerprint_count = %(fingerprint_count)s,
    found = %(found)s, files = %(files)s, tables = %(tables)s
WHERE id = %(id)s

-- finish_erasure --
UPDATE ingest_pipeline.erasure SET erased_at = now() WHERE id = %(id)s

-- keys_by_hash --
-- Keys with these hashes that the catalog of a corpus still has, in any state.
SELECT DISTINCT found.key FROM (
    SELECT d.key FROM ingest_pipeline.document d JOIN ingest_pipeline.generation k ON k.name = d.generation
    WHERE k.corpus = %(corpus)s
    UNION ALL
    SELECT f.key FROM ingest_pipeline.failure f JOIN ingest_pipeline.generation k ON k.name = f.generation
    WHERE k.corpus = %(corpus)s
    UNION ALL
    SELECT h.key FROM ingest_pipeline.hold h JOIN ingest_pipeline.generation k ON k.name = h.generation
    WHERE k.corpus = %(corpus)s
    UNION ALL
    SELECT unnest(b.keys) FROM ingest_pipeline.batch_job b JOIN ingest_pipeline.generation k ON k.name = b.generation
    WHERE k.corpus = %(corpus)s
) AS found
WHERE sha256(%(salt)s || convert_to(found.key, 'UTF8')) = ANY(%(hashes)s::bytea[])

-- content_hashes --
SELECT DISTINCT content_hash FROM ingest_pipeline.document
WHERE generation = %(generation)s AND key = ANY(%(keys)s) AND content_hash <> ''

-- has_erased --
SELECT EXISTS (
    SELECT 1 FROM ingest_pipeline.saga WHERE generation = %(generation)s AND kind = 'erasure' AND state = 'published'
      AND ended_at >= (SELECT requested_at FROM ingest_pipeline.erasure WHERE id = %(id)s)
) AS found

-- erase_chunks --
DELETE FROM ingest_pipeline.chunk c USING ingest_pipeline.document d
WHERE d.saga = c.saga AND d.key = c.document AND d.generation = %(generation)s AND d.key = ANY(%(keys)s)

-- erase_documents --
DELETE FROM ingest_pipeline.document WHERE generation = %(generation)s AND key = ANY(%(keys)s)

-- erase_failures --
DELETE FROM ingest_pipeline.failure WHERE generation = %(generation)s AND key = ANY(%(keys)s)

-- erase_holds --
DELETE FROM ingest_pipeline.hold WHERE generation = %(generation)s AND key = ANY(%(keys)s)

-- erase_batches --
-- A recorded answer does not say of which document its texts are, so all of them are deleted.
DELETE FROM ingest_pipeline.embedded_batch b USING ingest_pipeline.saga s
WHERE s.id = b.saga AND s.generation = %(generation)s

-- erase_batch_jobs --
UPDATE ingest_pipeline.batch_job SET
    keys = ARRAY(SELECT key FROM unnest(keys) AS key WHERE key <> ALL(%(keys)s::text[])), text_hashes = '{}',
    state = CASE WHEN state IN ('submitting', 'submitted') THEN 'failed' ELSE state END,
    ended_at = coalesce(ended_at, now()),
    error = CASE WHEN state IN ('submitting', 'submitted') THEN 'a document of the job was erased' END
WHERE generation = %(generation)s AND keys && %(keys)s::text[]

-- erase_saga_errors --
-- An error message may name a document, or quote it.
UPDATE ingest_pipeline.saga SET error = 'erased' WHERE generation = %(generation)s
  AND EXISTS (SELECT 1 FROM unnest(%(keys)s::text[]) AS key WHERE strpos(error, key) > 0)

-- erase_run_failures --
UPDATE ingest_pipeline.run_failure SET error = 'erased' WHERE generation = %(generation)s
  AND EXISTS (SELECT 1 FROM unnest(%(keys)s::text[]) AS key WHERE strpos(error, key) > 0)

-- tables_of_schema --
SELECT c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s AND c.relkind IN ('r', 'p') AND has_table_privilege(c.oid, 'SELECT') ORDER BY c.relname
