#!/bin/sh
# The two databases of compose.yaml, made once, by the image's own start: runs belong to the role ntrader, Prefect's
# tables to the role prefect. Prefect's need the extension pg_trgm, which a superuser adds.
set -eu

psql --set ON_ERROR_STOP=on --username postgres \
    --set ntrader="$OWNER_PASSWORD" --set prefect="$PREFECT_PASSWORD" <<'SQL'
CREATE ROLE ntrader LOGIN PASSWORD :'ntrader';
CREATE ROLE prefect LOGIN PASSWORD :'prefect';
CREATE DATABASE ntrader OWNER ntrader;
CREATE DATABASE prefect OWNER prefect;
\connect prefect
CREATE EXTENSION pg_trgm;
SQL
