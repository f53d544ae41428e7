#!/bin/sh
# Run once by the image when it initializes the volume. The owner migrates and audits; the server's login has only the
# rights of pos_app.
set -eu
psql --set=ON_ERROR_STOP=1 --username="$POSTGRES_USER" --dbname=postgres \
  --set=owner="$LEDGER_OWNER_PASSWORD" --set=server="$LEDGER_SERVER_PASSWORD" <<'SQL'
create role pos_owner login createrole password :'owner';
create role pos_app nologin;
create role pos_server login password :'server';
grant pos_app to pos_owner, pos_server;
create database ledger owner pos_owner;
revoke connect, temporary on database ledger from public;
grant connect on database ledger to pos_server;
SQL
