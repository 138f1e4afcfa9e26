-- When a dead ticket was received, for its replay. Where this cannot be done yet, because a dump reads
-- the table or another role owns it, dead tickets are kept without it.

do $$
begin
    if not exists (
        select from pg_attribute
        where attrelid = 'dead_tickets'::regclass and attname = 'received_at' and not attisdropped
    ) then
        alter table dead_tickets add column received_at timestamptz;
    end if;
end
$$;
