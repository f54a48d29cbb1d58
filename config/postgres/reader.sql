-- A role that may read everything ntrader has stored, and nothing else. For psql, as the owner of the tables or as a
-- superuser; running it again changes nothing:
--
--   psql "$DATABASE_URL" -v role=analyst -f config/postgres/reader.sql
--
-- Options, each with -v: login=off   a group to be granted to people; the default is a login without a password
--                        timeout=30s what a statement may take (60s)
--                        schema=...  where ntrader's tables are (the schema of alembic_version)
-- A login gets its password by: psql "$DATABASE_URL" -c '\password analyst'

\set ON_ERROR_STOP on
\if :{?role}
\else
    -- An error, so that psql ends with 3 and not with 0.
    DO $$ BEGIN RAISE 'no role is named' USING HINT = 'Add -v role=analyst.'; END $$;
\endif
\if :{?login}
\else
    \set login on
\endif
\if :{?timeout}
\else
    \set timeout 60s
\endif
\if :{?schema}
\else
    SELECT coalesce(
        (SELECT nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.oid = to_regclass('alembic_version')), current_schema()) AS schema \gset
\endif

BEGIN;
SET LOCAL client_min_messages = warning;

-- Whoever writes must not become a reader by a slip of the keyboard.
SELECT EXISTS (
    SELECT FROM pg_roles r WHERE rolname = :'role'
    AND (rolsuper OR rolname = current_user OR EXISTS (
        SELECT FROM pg_class WHERE relowner = r.oid AND relnamespace = quote_ident(:'schema')::regnamespace))
) AS writes \gset
\if :writes
    DO $$ BEGIN RAISE 'that role is a superuser, owns tables, or is you' USING HINT = 'Choose another name.'; END $$;
\endif

SELECT format('CREATE ROLE %I', :'role') WHERE to_regrole(quote_ident(:'role')) IS NULL \gexec
\if :login
    ALTER ROLE :"role" LOGIN;
\else
    ALTER ROLE :"role" NOLOGIN;
\endif

-- Only in this database: elsewhere the role may be used for something else.
SELECT format('ALTER ROLE %I IN DATABASE %I SET %s = %L', :'role', current_database(), name, value)
FROM (VALUES ('default_transaction_read_only', 'on'), ('statement_timeout', :'timeout')) AS setting (name, value) \gexec

SELECT format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), :'role') \gexec
GRANT USAGE ON SCHEMA :"schema" TO :"role";
GRANT SELECT ON ALL TABLES IN SCHEMA :"schema" TO :"role";

-- What migrations of the owner add later.
SELECT format('ALTER DEFAULT PRIVILEGES FOR ROLE %I IN SCHEMA %I GRANT SELECT ON TABLES TO %I',
              pg_get_userbyid(relowner), :'schema', :'role')
FROM pg_class WHERE relname = 'backtest_runs' AND relnamespace = quote_ident(:'schema')::regnamespace
UNION
SELECT format('ALTER DEFAULT PRIVILEGES IN SCHEMA %I GRANT SELECT ON TABLES TO %I', :'schema', :'role') \gexec

-- Databases that began before PostgreSQL 15 let everybody create tables in public. That is theirs to decide.
SELECT has_schema_privilege(:'role', :'schema', 'CREATE') AS may_create \gset
COMMIT;

\if :may_create
    \warn 'Everybody may create tables in schema' :schema': REVOKE CREATE ON SCHEMA' :schema 'FROM PUBLIC ends that.'
\endif
