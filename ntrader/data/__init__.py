"""Bars: where they come from, what makes them fit to trade on, and their fingerprint."""
