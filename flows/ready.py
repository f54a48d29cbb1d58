"""What every flow begins with: under a deployment nobody has prepared anything before."""

from __future__ import annotations

from ntrader.settings import Settings, load_settings
from ntrader.worker import default_worker
from storage import migrations
from tasks.console import outlive_reader
from tasks.label import claim_flow_run


def ready(*, engine: bool = True, database: bool = True) -> Settings:
    """The settings, with a worker that has begun to load the engine meanwhile and a database that can be used; and
    Prefect knows which process the flow run is, should that be killed before it has come to anything.

    Raises SchemaError when a database that is not ours to change is behind, DatabaseError when it cannot be had.
    """
    outlive_reader()
    settings = load_settings()
    if engine:
        default_worker().start()
    claim_flow_run()
    if database:
        migrations.prepare(settings)
    return settings
