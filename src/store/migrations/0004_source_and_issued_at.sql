-- Who sent a ticket and when it was issued; null where that is not known, as for all that are there.
-- No row is touched, and writers that do not know the columns go on.

do $$
declare
    name text;
begin
    foreach name in array array['tickets', 'dead_tickets'] loop
        if (
            select count(*) from pg_attribute
            where attrelid = name::regclass and attname in ('source', 'issued_at') and not attisdropped
        ) < 2 then
            execute format(
                'alter table %I add column if not exists source text, add column if not exists issued_at timestamptz',
                name
            );
        end if;
    end loop;
end
$$;
