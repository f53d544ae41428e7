-- name: session_settings
select name, case name when 'current_user' then current_user else current_setting(name) end as value
from unnest($1::text[]) as name;
