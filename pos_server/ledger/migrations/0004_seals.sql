-- Each day's transfers are sealed: whoever changes or removes one later breaks the seal, and everyone after it.
create table seal (
    number bigint primary key,
    day date not null,
    -- Of all transfers with these ids, in order: the id (8 bytes) and the first 8 bytes of its row's SHA-256.
    first_id bigint not null,
    last_id bigint not null,
    transfers bigint not null,
    digests bytea not null,
    previous_hash bytea not null,
    hash bytea not null,
    sealed_at timestamptz not null default now()
);
create index seal_day on seal (day);

-- What is sealed of a transfer: every column, in a form that no setting changes.
create function transfer_digest(transfer) returns bytea language sql stable parallel safe
    return substring(sha256(convert_to(concat_ws('|', $1.id, $1.kind, $1.source_id, $1.debit_account_id,
        $1.credit_account_id, $1.amount_minor, $1.currency, coalesce($1.wallet_number, 0),
        (extract(epoch from $1.created_at) * 1000000)::bigint), 'UTF8')) for 8);

grant select on seal to pos_app;
