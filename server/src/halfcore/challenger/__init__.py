"""A second model next to a served one: as a canary it answers a share of the requests, as a shadow
it gets a copy of them."""
