-- Three roles for a Postgres of your own; docs/permissions.md says what each may do.
-- Run it in the database of the catalog, as its owner or as a superuser. It may be run any number of times.

DO $$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['ingest_owner', 'ingest_writer', 'ingest_reader'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
            EXECUTE format('CREATE ROLE %I LOGIN', role);  -- no password yet: ALTER ROLE ... PASSWORD, or \password
        END IF;
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), role);
    END LOOP;
    EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
END $$;

-- The owner makes and upgrades the tables. It needs no right on the database, since the schema is there.
CREATE SCHEMA IF NOT EXISTS ingest_pipeline AUTHORIZATION ingest_owner;
GRANT USAGE ON SCHEMA ingest_pipeline TO ingest_writer, ingest_reader;

-- What the owner makes from now on, and what is there already.
ALTER DEFAULT PRIVILEGES FOR ROLE ingest_owner IN SCHEMA ingest_pipeline
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO ingest_writer;
ALTER DEFAULT PRIVILEGES FOR ROLE ingest_owner IN SCHEMA ingest_pipeline
    GRANT SELECT ON TABLES TO ingest_reader;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA ingest_pipeline TO ingest_writer;
GRANT SELECT ON ALL TABLES IN SCHEMA ingest_pipeline TO ingest_reader;

-- Dagster makes and upgrades its own tables by itself, in a schema that the catalog does not use.
CREATE SCHEMA IF NOT EXISTS ingest_pipeline_dagster AUTHORIZATION ingest_writer;
