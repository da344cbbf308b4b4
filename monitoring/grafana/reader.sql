-- A user for Grafana, who reads the tables of the nightly job, those to come included, and writes nothing:
-- Grafana sends whatever SQL somebody types there. Once, as one who may make users, with PostgreSQL and
-- psql 14 or later:
--
--   RECSYS_POSTGRES_PASSWORD=... psql postgresql://postgres@warehouse/analytics -f reader.sql
\set ON_ERROR_STOP on
\getenv password RECSYS_POSTGRES_PASSWORD
CREATE ROLE grafana LOGIN PASSWORD :'password' IN ROLE pg_read_all_data;
-- A statement that got out of hand ends.
ALTER ROLE grafana SET statement_timeout = '30s';
