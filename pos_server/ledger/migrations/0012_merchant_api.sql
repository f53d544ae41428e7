-- Lists that merchants' back offices ask for. A till's payments are found by payment_terminal; these are of what no till did,
-- so no till's payment pays for it.
create index payment_office on payment (merchant_id, changed_at) where terminal_number is null;
create index shift_opened on shift (terminal_number, opened_at);
