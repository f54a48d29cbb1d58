"""The strategies that come with ntrader, and how a strategy of your own is found by its import path."""
