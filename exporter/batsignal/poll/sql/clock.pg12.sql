-- The cheapest question there is: its round trip is the ping, its answer the server's clock.
SELECT date_part('epoch', pg_catalog.clock_timestamp())
