-- Puts the numbering of ids behind the rows that are there, as a restored dump may have left it. A
-- role that may only write rows is not told the number, nor may it change it.

do $$
declare
    old record;
begin
    for old in
        select t.name as tbl, pg_get_serial_sequence(t.name, 'id')::regclass as numbering
        from unnest(array['tickets', 'products']) as t (name)
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
