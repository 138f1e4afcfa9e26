-- What is on the books of each source for one day of business, an object a row: the tickets of a
-- range of time, read once.
--
-- $1 and $2: the first moment of the day, and the first after it. $3: only this source, or null.
-- $4: the highest rate of VAT, in percent. $5: how many of each list are told.
with day as materialized (
    select
        id,
        ticket_id,
        -- No source has an empty name; null would make joins slow. Compared by its bytes.
        coalesce(source, '') collate "C" as source,
        order_id,
        order_number as number,
        valid,
        vat,
        total,
        received_at,
        booked_at as at
    from ticket_facts
    where booked_at >= $1
        and booked_at < $2
        and ($3::text is null or source = $3)
),
sums as (
    select
        source,
        count(*) as tickets,
        count(*) filter (where valid) as valid,
        count(number) as numbered,
        coalesce(sum(total) filter (where valid), 0) as total,
        coalesce(sum(vat) filter (where valid), 0) as vat,
        min(at) filter (where order_id is not null) as first_at,
        max(at) filter (where order_id is not null) as last_at,
        count(*) filter (where received_at >= $2) as late,
        floor(extract(epoch from max(received_at) filter (where received_at >= $2) - $2))::bigint as late_by
    from day
    group by source
),
-- Of several at the same time, by the order of storing.
ends as (
    select
        day.source,
        (array_agg(order_id order by id) filter (where at = first_at))[1] as first_order,
        (array_agg(order_id order by id desc) filter (where at = last_at))[1] as last_order
    from day
    join sums on sums.source = day.source and at in (first_at, last_at)
    where order_id is not null
    group by day.source
),
-- The same number twice is no step.
steps as (
    select source, number, lag(number) over (partition by source order by number) as before
    from day
    where number is not null
),
gaps as (
    select
        source,
        before + 1 as first,
        number - 1 as last,
        row_number() over (partition by source order by number) as place
    from steps
    where number > before + 1
),
missing as (
    select
        source,
        sum(last - first + 1) as missing,
        count(*) as ranges,
        json_agg(json_build_object('from', first::text, 'to', last::text) order by place)
            filter (where place <= $5) as list
    from gaps
    group by source
),
repeated as (
    select
        source,
        order_id,
        total,
        count(*) as times,
        row_number() over (partition by source order by min(at), min(id)) as place
    from day
    where order_id is not null and total is not null
    group by source, order_id, total
    having count(*) > 1
),
doubles as (
    select
        source,
        sum(times - 1) as doubles,
        count(*) as orders,
        json_agg(json_build_object('order_id', order_id, 'total', total::text, 'times', times) order by place)
            filter (where place <= $5) as list
    from repeated
    group by source
),
odd as (
    select
        source,
        ticket_id,
        order_id,
        vat,
        total,
        row_number() over (partition by source order by at, id) as place
    from day
    where valid
        -- A rate of r percent is r/(100+r) of the total with VAT, give or take half a cent of rounding.
        and ((abs(vat) - 0.005) * (100 + $4::text::numeric) > abs(total) * $4::text::numeric
            or sign(vat) * sign(total) < 0)
),
implausible as (
    select
        source,
        count(*) as implausible,
        json_agg(json_build_object('id', ticket_id, 'order_id', order_id, 'vat', vat::text, 'total', total::text)
            order by place) filter (where place <= $5) as list
    from odd
    group by source
)
select json_build_object(
    'source', nullif(sums.source, ''),
    'tickets', tickets,
    'valid', valid,
    'invalid', tickets - valid,
    'total', sums.total::text,
    'vat', sums.vat::text,
    'first', case when first_at is not null then json_build_object('order_id', first_order, 'at', first_at) end,
    'last', case when last_at is not null then json_build_object('order_id', last_order, 'at', last_at) end,
    'numbered', numbered,
    'missing', json_build_object('count', coalesce(missing, 0), 'ranges', coalesce(ranges, 0),
        'first', coalesce(missing.list, '[]')),
    'late', json_build_object('count', late, 'by_seconds', late_by),
    'doubles', json_build_object('count', coalesce(doubles, 0), 'orders', coalesce(orders, 0),
        'first', coalesce(doubles.list, '[]')),
    'implausible_vat', json_build_object('count', coalesce(implausible, 0),
        'first', coalesce(implausible.list, '[]'))
)::text
from sums
left join ends on ends.source = sums.source
left join missing on missing.source = sums.source
left join doubles on doubles.source = sums.source
left join implausible on implausible.source = sums.source
order by sums.source
