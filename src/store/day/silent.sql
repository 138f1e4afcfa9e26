-- The sources that have sent nothing for longer than they usually pause, an object a row, the longest
-- silent first. What is usual is the second-longest pause of 28 days, so that one failure does not
-- hide the next; at least an hour, and at least a day of a source that is known for less than three.
--
-- Looked at hour by hour, since that is little; a pause within an hour is never of interest. The hours
-- are those of UTC: to find those of a time zone with its changes takes as long as all the rest.
with received as (
    select
        coalesce(source, '') collate "C" as source,
        date_trunc('hour', received_at at time zone 'UTC') as hour,
        received_at
    from tickets
    where received_at >= now() - interval '672 hours'
    -- Keeps the planner from taking the hours for as many as the tickets, and from sorting all of these.
    offset 0
),
hours as (
    select source, hour, min(received_at) as first, max(received_at) as last
    from received
    group by source, hour
),
pauses as (
    select
        source,
        first,
        last,
        first - lag(last) over (partition by source order by hour) as pause
    from hours
),
known as (
    select
        source,
        max(last) as last,
        greatest(
            (array_agg(pause order by pause desc nulls last))[2],
            interval '1 hour',
            case when min(first) > now() - interval '72 hours' then interval '24 hours' end
        ) as usual
    from pauses
    group by source
)
select json_build_object(
    'source', nullif(source, ''),
    'last', last,
    'silent_seconds', floor(extract(epoch from now() - last))::bigint,
    'usual_seconds', floor(extract(epoch from usual))::bigint
)::text
from known
where now() - last > usual
order by last, source
