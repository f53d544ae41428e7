"""The store at lunchtime: a day of tills and wallets in stores, played by locust. docs/loadtest.md describes it.

`__main__` runs a server, locust, the audit and the report. `plan` is the day. In locust's processes, `locustfile` holds
the users, `hall` one process's share of the stores, `customer` the flows at a till, and `device` a reconnecting till or
wallet. `outcomes` says which outcome is a failure, and `recorder` keeps the measurements.

`back_office` opens the stores and checks the books through the REST API. `watch` observes the machine, `figures`,
`objectives` and `report` evaluate the day.
"""
