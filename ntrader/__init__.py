"""The core: what a backtest means. It knows no Prefect, no SQL and no Typer."""
