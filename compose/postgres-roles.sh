#!/bin/sh
# The roles and the database, once, when the server's data directory is made (/docker-entrypoint-initdb.d).
set -eu
psql --no-psqlrc --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres <<'SQL'
\set batsignal `cat /run/secrets/batsignal`
\set shop `cat /run/secrets/shop`
CREATE ROLE batsignal LOGIN PASSWORD :'batsignal' IN ROLE pg_monitor;
CREATE ROLE shop LOGIN PASSWORD :'shop';
CREATE DATABASE shop OWNER shop;
SQL
