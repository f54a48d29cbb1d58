-- A role for workers and people who run backtests and sweeps: it adds and reads, and changes only what a run or a sweep
-- that goes on has to change. It deletes nothing and alters no table. For psql, as the owner of the tables or as a
-- superuser; run it again after `ntrader db upgrade`, for tables that are new:
--
--   psql "$DATABASE_URL" -v role=desk -f config/postgres/writer.sql
--
-- Options, each with -v: login=off   a group to be granted to people; the default is a login without a password
--                        schema=...  where ntrader's tables are (the schema of alembic_version)
-- A login gets its password by: psql "$DATABASE_URL" -c '\password desk'

\set ON_ERROR_STOP on
\if :{?role}
\else
    -- An error, so that psql ends with 3 and not with 0.
    DO $$ BEGIN RAISE 'no role is named' USING HINT = 'Add -v role=desk.'; END $$;
\endif
\if :{?login}
\else
    \set login on
\endif
\if :{?schema}
\else
    SELECT coalesce(
        (SELECT nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.oid = to_regclass('alembic_version')), current_schema()) AS schema \gset
\endif

BEGIN;
SET LOCAL client_min_messages = warning;

-- The owner may do everything; taking rights away from it would not make it a writer.
SELECT EXISTS (
    SELECT FROM pg_roles r WHERE rolname = :'role'
    AND (rolsuper OR rolname = current_user OR EXISTS (
        SELECT FROM pg_class WHERE relowner = r.oid AND relnamespace = quote_ident(:'schema')::regnamespace))
) AS owns \gset
\if :owns
    DO $$ BEGIN RAISE 'that role is a superuser, owns tables, or is you' USING HINT = 'Choose another name.'; END $$;
\endif

SELECT format('CREATE ROLE %I', :'role') WHERE to_regrole(quote_ident(:'role')) IS NULL \gexec
\if :login
    ALTER ROLE :"role" LOGIN;
\else
    ALTER ROLE :"role" NOLOGIN;
\endif

SELECT format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), :'role') \gexec
GRANT USAGE ON SCHEMA :"schema" TO :"role";
REVOKE ALL ON ALL TABLES IN SCHEMA :"schema" FROM :"role";
GRANT SELECT ON ALL TABLES IN SCHEMA :"schema" TO :"role";
GRANT USAGE ON ALL SEQUENCES IN SCHEMA :"schema" TO :"role";

-- What is recorded is only added to. The schema's version and the list of deleted runs are not the writer's.
SELECT format('GRANT INSERT ON %I.%I TO %I', :'schema', name, :'role')
FROM unnest(array['backtest_runs', 'performance_metrics', 'equity_curves', 'trades', 'fills', 'kept_contents',
                  'kept_data', 'sweeps', 'trials']) AS added (name)
WHERE to_regclass(format('%I.%I', :'schema', name)) IS NOT NULL \gexec
-- A run is finished and labelled, a sweep gets on, a trial is taken and given back. Triggers keep what is finished.
SELECT format('GRANT UPDATE ON %I.%I TO %I', :'schema', name, :'role')
FROM unnest(array['backtest_runs', 'sweeps', 'trials']) AS changed (name)
WHERE to_regclass(format('%I.%I', :'schema', name)) IS NOT NULL \gexec

-- Bars that were not kept may be, by a later run over the same.
SELECT format('GRANT UPDATE (chunks, days, day_digests) ON %I.kept_data TO %I', :'schema', :'role')
WHERE to_regclass(format('%I.kept_data', :'schema')) IS NOT NULL \gexec

-- What migrations of the owner add later can be read at once.
SELECT format('ALTER DEFAULT PRIVILEGES FOR ROLE %I IN SCHEMA %I GRANT SELECT ON TABLES TO %I',
              pg_get_userbyid(relowner), :'schema', :'role')
FROM pg_class WHERE relname = 'backtest_runs' AND relnamespace = quote_ident(:'schema')::regnamespace \gexec

-- Databases that began before PostgreSQL 15 let everybody create tables in public. That is theirs to decide.
SELECT has_schema_privilege(:'role', :'schema', 'CREATE') AS may_create \gset
COMMIT;

\if :may_create
    \warn 'Everybody may create tables in schema' :schema': REVOKE CREATE ON SCHEMA' :schema 'FROM PUBLIC ends that.'
\endif
