-- Bounds that the REST API has, for every way to write these columns: one value beyond them made a list fail for everybody.
update merchant set fee_fixed_minor = 9007199254740991 where fee_fixed_minor > 9007199254740991;
alter table merchant add constraint merchant_fee_fixed check (fee_fixed_minor <= 9007199254740991);
