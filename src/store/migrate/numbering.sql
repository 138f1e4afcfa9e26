-- Puts the numbering of ids behind the rows that are there, as a restored dump may have left it. A
-- role that may only write rows is not told the number, nor may it change it. A table without an index on
-- them is left out: its ids need not be unique, and to find the last would be to read all rows.

do $$
declare
    old record;
begin
    for old in
        select t.name as tbl, pg_get_serial_sequence(t.name, 'id')::regclass as numbering
        from unnest(array['tickets', 'products']) as t (name)
        where exists (
            select from pg_index i join pg_attribute a on (a.attrelid, a.attnum) = (i.indrelid, i.indkey[0])
            where i.indrelid = t.name::regclass and i.indisunique and a.attname = 'id'
        )
    loop
        if has_sequence_privilege(old.numbering, 'select') and has_sequence_privilege(old.numbering, 'update') then
            execute format(
                'select setval(%L, u.used) from (select max(id) as used from %I) u, %s s '
                'where u.used > s.last_value or (u.used = s.last_value and not s.is_called)',
                old.numbering, old.tbl, old.numbering);
        end if;
    end loop;
end
$$;
