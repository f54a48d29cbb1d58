-- The owner of ntrader's tables and its database, for a new server. For psql, once, as a superuser:
--
--   psql -h db.example -U postgres -v owner=ntrader -v database=ntrader -f config/postgres/owner.sql
--   psql -h db.example -U postgres -c '\password ntrader'
--   DATABASE_URL=postgresql://ntrader@db.example/ntrader ntrader db upgrade
--
-- Then the roles that work with it: writer.sql, reader.sql. The owner itself is for upgrades, restores and deletions.
-- CREATEROLE lets it make those two; drop it afterwards with ALTER ROLE ... NOCREATEROLE.

\set ON_ERROR_STOP on
\if :{?owner}
\else
    \set owner ntrader
\endif
\if :{?database}
\else
    \set database ntrader
\endif

SELECT format('CREATE ROLE %I LOGIN CREATEROLE', :'owner') WHERE to_regrole(quote_ident(:'owner')) IS NULL \gexec
SELECT format('CREATE DATABASE %I OWNER %I', :'database', :'owner')
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'database') \gexec
-- Nobody else looks in, and temporary tables are not needed.
SELECT format('REVOKE ALL ON DATABASE %I FROM PUBLIC', :'database') \gexec
