"""Users for Locust. This package imports gevent and is for Locust's processes only: the lab itself
never imports it.

`RawHttpUser` (the default) costs a tenth of the others; `FastHttpUser` and `StockHttpUser` are
Locust's own clients under the same behaviour.
"""

from loadlab.users.fast import FastHttpUser
from loadlab.users.raw import RawHttpUser
from loadlab.users.stock import StockHttpUser

__all__ = ["FastHttpUser", "RawHttpUser", "StockHttpUser"]
