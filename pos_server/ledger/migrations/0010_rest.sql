-- Back offices use the REST API with a key that has one role: the operator's, the issuer's of wallets, a merchant's.

alter table api_key
    alter merchant_id drop not null,
    drop constraint api_key_scopes,
    drop column scopes,
    add role text not null default 'merchant' check (role in ('admin', 'issuer', 'merchant')),
    add last_used_at timestamptz;
alter table api_key rename revoked_at to ends_at;
alter table api_key
    alter role drop default,
    add constraint api_key_merchant check ((merchant_id is not null) = (role = 'merchant'));
grant insert on api_key to pos_app;
grant update (ends_at, last_used_at) on api_key to pos_app;

-- What a request made, in the commit that made it, so that a repeat is answered the same. Secrets are not kept: they are
-- made again from the request and the master key `kid`.
create table idempotency_key (
    tenant text not null,
    key text not null,
    fingerprint bytea not null,
    answer text not null,
    kid text not null,
    created_at timestamptz not null default now(),
    primary key (tenant, key)
);
grant select, insert on idempotency_key to pos_app;

-- As the API says times.
create function rfc3339(timestamptz) returns text language sql immutable parallel safe
    return to_char($1 at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"');
