-- What a day of business had, for reports: views, which cost nothing until they are asked. Each that is
-- missing is made; a role that may not do so goes on without them.

do $$
begin
    if to_regclass('ticket_facts') is null then
        create view ticket_facts as
        select
            id,
            ticket_id,
            source,
            order_id,
            case when order_id ~ '^0*[0-9]{1,18}$' then order_id::bigint end as order_number,
            valid,
            vat,
            total,
            received_at,
            coalesce(issued_at, received_at) as booked_at,
            coalesce(issued_at, received_at)::date as day
        from tickets;
    end if;

    if to_regclass('ticket_days') is null then
        create view ticket_days as
        select
            source,
            day,
            tickets,
            valid,
            tickets - valid as invalid,
            total,
            vat,
            (select order_id from ticket_facts where id = first_at_id[2]::bigint) as first_order_id,
            (select order_id from ticket_facts where id = last_at_id[2]::bigint) as last_order_id,
            late
        from (
            select
                source,
                day,
                count(*) as tickets,
                count(*) filter (where valid) as valid,
                coalesce(sum(total) filter (where valid), 0) as total,
                coalesce(sum(vat) filter (where valid), 0) as vat,
                min(array[extract(epoch from booked_at)::float8, id]) filter (where order_id is not null) as first_at_id,
                max(array[extract(epoch from booked_at)::float8, id]) filter (where order_id is not null) as last_at_id,
                count(*) filter (where received_at::date > day) as late
            from ticket_facts
            group by source, day
        ) as days;
    end if;

    if to_regclass('ticket_order_gaps') is null then
        create view ticket_order_gaps as
        select source, day, before + 1 as first_missing, order_number - 1 as last_missing, order_number - before - 1 as missing
        from (
            select
                source,
                day,
                order_number,
                lag(order_number) over (partition by source, day order by order_number) as before
            from ticket_facts
            where order_number is not null
        ) as steps
        where order_number > before + 1;
    end if;

    if to_regclass('ticket_doubles') is null then
        create view ticket_doubles as
        select source, day, order_id, total, count(*) as times
        from ticket_facts
        where order_id is not null and total is not null
        group by source, day, order_id, total
        having count(*) > 1;
    end if;

    if to_regclass('ticket_implausible_vat') is null then
        create view ticket_implausible_vat as
        select source, day, ticket_id, order_id, vat, total
        from ticket_facts
        where valid
            and ((abs(vat) - 0.005) * 120 > abs(total) * 20 or sign(vat) * sign(total) < 0);
    end if;
end
$$;
