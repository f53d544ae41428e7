-- A day never ends before it starts. Statements of earlier versions may violate this (then the audit names them), so they
-- are not validated.
alter table settlement add constraint settlement_ends check (ends_at >= starts_at) not valid;
-- Finds the statements of a day, and the last day.
create index settlement_date on settlement (business_date);
