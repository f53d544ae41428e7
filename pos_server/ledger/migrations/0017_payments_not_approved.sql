-- A list of a merchant's declined, canceled, pending or expired payments reads one page, however many were approved.
create index payment_not_approved on payment (merchant_id, status, changed_at) where status <> 'approved';
