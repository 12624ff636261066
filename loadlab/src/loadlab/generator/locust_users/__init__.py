"""Users for Locust. This package imports gevent and is for Locust's processes only: the lab itself
never imports it.

`RawHttpUser` (the default) costs a tenth of the others; `FastHttpUser` and `StockHttpUser` are
Locust's own clients under the same behaviour.
"""

from loadlab.generator.locust_users.fast import FastHttpUser
from loadlab.generator.locust_users.raw import RawHttpUser
from loadlab.generator.locust_users.stock import StockHttpUser

__all__ = ["FastHttpUser", "RawHttpUser", "StockHttpUser"]
