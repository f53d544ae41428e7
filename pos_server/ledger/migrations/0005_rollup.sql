-- What merchants and the house hold, summed up as far as `last_id`; the transfers after it are the tail that is added when
-- a balance is read. So no payment updates a row that others update too.
create table rollup_horizon (
    only_row boolean primary key default true check (only_row),
    last_id bigint not null
);
insert into rollup_horizon (last_id) values (0);
create table account_rollup (
    account_id bigint primary key,
    balance_minor bigint not null
);
grant select, update on rollup_horizon to pos_app;
grant select, insert, update on account_rollup to pos_app;
