-- The tables of the Go service that ticketd replaces, where one of them is missing. Those in the
-- field may differ in types, names of constraints and defaults.

do $$
begin
    if to_regclass('tickets') is null then
        create table tickets (
            id          serial primary key,
            order_id    varchar(255),
            vat         numeric(10, 2),
            total       numeric(10, 2),
            valid       boolean,
            ticket_text text,
            created_at  timestamp default now()
        );
    end if;

    if to_regclass('products') is null then
        create table products (
            id         serial primary key,
            name       varchar(255),
            product_id varchar(255) not null unique,
            price      numeric(10, 2),
            created_at timestamp default now()
        );
    end if;
end
$$;
