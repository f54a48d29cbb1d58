"""Sweeps as values: a search space, what is drawn from it, and the RunConfig of each point."""
