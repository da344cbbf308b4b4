-- A user for Grafana, who reads the tables of the nightly job, those to come included, and nothing else, and
-- writes nothing: Grafana sends whatever SQL somebody types there. Once, with PostgreSQL and psql 14 or later,
-- as one who may make users and schemas, and may act for the user of the nightly job, such as a superuser:
--
--   RECSYS_POSTGRES_PASSWORD=... psql postgresql://postgres@warehouse/analytics -v job=personalization -f reader.sql
--
-- `job` is the user that the nightly job connects as, who makes the tables, and whose grants on those to come
-- these therefore are. It has to be there; without -v it is the user that runs this.
\set ON_ERROR_STOP on
\getenv password RECSYS_POSTGRES_PASSWORD
\if :{?job} \else
  \set job :USER
\endif
BEGIN;
CREATE ROLE grafana LOGIN PASSWORD :'password';
-- The job makes them, too, where they are missing; here they have to be there before it ran.
CREATE SCHEMA IF NOT EXISTS analytics AUTHORIZATION :"job";
CREATE SCHEMA IF NOT EXISTS experiments AUTHORIZATION :"job";
GRANT USAGE ON SCHEMA analytics, experiments TO grafana;
GRANT SELECT ON ALL TABLES IN SCHEMA analytics, experiments TO grafana;
ALTER DEFAULT PRIVILEGES FOR ROLE :"job" IN SCHEMA analytics, experiments GRANT SELECT ON TABLES TO grafana;
-- A statement that got out of hand ends.
ALTER ROLE grafana SET statement_timeout = '30s';
COMMIT;
