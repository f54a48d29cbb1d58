"""The Prefect border: @task functions of a few lines."""
