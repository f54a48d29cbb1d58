"""A plain Nautilus strategy that does what a script says by bar number: `{"2": "buy 10", "5": "sell 10 stop 95"}`.

Bars count from 1. Other words: `raise`, `exit`, `leave`, `exhaust`, `leak`, `sleep`, `kill`, `hang`, `print`. It is
loaded by import path, like anybody's own.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from pathlib import Path

from nautilus_trader.config import StrategyConfig
from nautilus_trader.model.data import Bar, BarType
from nautilus_trader.model.enums import OrderSide
from nautilus_trader.model.events import OrderFilled
from nautilus_trader.model.identifiers import InstrumentId
from nautilus_trader.trading.strategy import Strategy

_leaked: list[bytearray] = []


class ScriptedConfig(StrategyConfig, frozen=True):
    instrument_id: InstrumentId
    bar_type: BarType
    script: dict[str, str] = {}
    on_fill: str = ""
    raise_in: str = ""
    marker: str = ""
    market_only: bool = False


class Scripted(Strategy):
    def __init__(self, config: ScriptedConfig) -> None:
        super().__init__(config)
        self.bar = 0

    @staticmethod
    def sends_only_market_orders(parameters: dict[str, object]) -> bool:
        return bool(parameters.get("market_only"))

    def on_start(self) -> None:
        if self.config.raise_in == "on_start":
            raise RuntimeError("on_start went wrong")
        self.subscribe_bars(self.config.bar_type)

    def on_bar(self, bar: Bar) -> None:
        self.bar += 1
        for words in self.config.script.get(str(self.bar), "").split(";"):
            if words.strip():
                self.obey(words.split())

    def on_order_filled(self, event: OrderFilled) -> None:
        if self.config.on_fill and event.order_side == OrderSide.BUY:
            self.obey(self.config.on_fill.split())

    def on_stop(self) -> None:
        if self.config.raise_in == "on_stop":
            raise RuntimeError("on_stop went wrong")

    def obey(self, words: list[str]) -> None:
        match words:
            case ["raise"]:
                raise RuntimeError(f"bar {self.bar} went wrong")
            case ["raise", "until", "mended"]:
                if not os.path.exists(self.config.marker):
                    raise RuntimeError(f"bar {self.bar} went wrong")
            case ["exit" | "leave" | "exhaust" | "leak" as word]:
                getattr(self, word)()
            case ["sleep", seconds]:
                time.sleep(float(seconds))
            case ["kill"]:
                os.kill(os.getpid(), signal.SIGKILL)
            case ["kill", "once"]:
                self.kill_once()
            case ["hang"]:
                self.hang()
            case ["hang", "again"] if not os.path.exists(self.config.marker):
                self.hang()
            case ["hang", "again"]:
                pass
            case ["print"]:
                print("printed by the strategy")
            case [side, quantity, *rest]:
                self.order(side, int(quantity), rest)

    def kill_once(self) -> None:
        if not os.path.exists(self.config.marker):
            open(self.config.marker, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)

    def exit(self) -> None:
        sys.exit(3)

    def leave(self) -> None:
        os._exit(7)

    def leak(self) -> None:
        _leaked.append(bytearray(1_000_000))

    def exhaust(self) -> None:
        """Ask for more memory than the process may have."""
        limits = resource.getrlimit(resource.RLIMIT_AS)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGE_SIZE") + 200_000_000, limits[1]))
        try:
            hoard = []
            while True:
                hoard.append(bytearray(10_000_000))
        finally:
            resource.setrlimit(resource.RLIMIT_AS, limits)

    def hang(self) -> None:
        if self.config.marker:
            open(self.config.marker, "w").close()
        while True:
            time.sleep(0.05)

    def order(self, side: str, quantity: int, rest: list[str]) -> None:
        order_side = OrderSide.BUY if side == "buy" else OrderSide.SELL
        amount = self.cache.instrument(self.config.instrument_id).make_qty(quantity)
        if not rest:
            order = self.order_factory.market(self.config.instrument_id, order_side, amount)
        else:
            price = self.cache.instrument(self.config.instrument_id).make_price(float(rest[1]))
            factory = {"stop": self.order_factory.stop_market, "limit": self.order_factory.limit}[rest[0]]
            order = factory(self.config.instrument_id, order_side, amount, price)
        self.submit_order(order)
