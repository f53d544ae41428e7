-- What a device may have missed is read from the payments themselves, by who took part and when they last changed. The same
-- two indexes carry a till's recent payments and a wallet's history.
create index payment_terminal on payment (terminal_number, changed_at);
create index payment_wallet on payment (wallet_number, changed_at) where wallet_number is not null;
