-- The yardstick for the load generator: wrk -t2 -c CONNECTIONS -s loadtest/wrk.lua URL
wrk.method = "POST"
wrk.headers["Content-Type"] = "text/plain"
wrk.body = "Order: L0123456789abc-0000000042\nVAT: 1.53\nTotal: 16.90\n\n"
  .. "product,product_id,price\nFormule(s) midi,P042,14.90\nCafé,P007,2.00\n"
