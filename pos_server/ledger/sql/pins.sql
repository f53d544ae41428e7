-- name: wallet_pin
select pin_hash, pin_kid, pin_generation, unix_ms(pin_locked_until) as pin_locked_until_ms, pin_request_id,
    pin_request_done
from wallet where number = $1;

-- name: is_pin_awaited
select exists (
    select from payment
    where id = $3 and merchant_id = $2 and wallet_number = $1 and version = $4 and status = 'pending'
);

-- name: set_pin
-- Only while the PIN is still the one that was checked. Increments the version, so that a payment decided with the old
-- PIN is decided again.
update wallet set pin_hash = $3, pin_kid = $4, pin_generation = pin_generation + 1, pin_failures = 0,
    pin_locked_until = 'epoch', pin_request_id = $5, pin_request_done = true, version = version + 1
where number = $1 and pin_generation = $2 returning pin_generation;

-- name: count_wrong_pin
-- A wrong old PIN counts like a wrong PIN for a payment.
update wallet set pin_failures = case when pin_failures + 1 < $3 then pin_failures + 1 else 0 end,
    pin_locked_until = case when pin_failures + 1 < $3 then pin_locked_until else from_unix_ms($4) end,
    pin_request_id = $5, pin_request_done = false, version = version + 1
where number = $1 and pin_generation = $2;
