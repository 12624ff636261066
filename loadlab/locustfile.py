"""The lab's users for Locust, by hand: `uv run locust -f loadlab/locustfile.py --host
http://127.0.0.1:8000 --users 100 --spawn-rate 10`.

`--user fast` and `--user stock` choose Locust's own clients, `--scenario` and `--model` what is
asked. `just load` uses this file too.
"""

import loadlab.generator.locust_users.hooks  # noqa: F401  the options, and what is counted
from loadlab.generator.locust_users import FastHttpUser, RawHttpUser, StockHttpUser

__all__ = ["FastHttpUser", "RawHttpUser", "StockHttpUser"]
