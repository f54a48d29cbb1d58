"""Compare recorded runs, for Prefect's pages: compare-runs, publish-summary."""

from __future__ import annotations

from prefect import flow

from flows.ready import ready
from ntrader.comparison import Comparison
from ntrader.comparison_report import markdown
from tasks.compare_runs import compare_runs
from tasks.label import label_flow_run
from tasks.publish import publish_summary


@flow(name="compare", validate_parameters=True)
def compare(runs: list[str], baseline: str | None = None) -> Comparison:
    """Compare 2 to 10 recorded runs and publish it as a Markdown artifact.

    Args:
        runs: Run IDs, the first characters of them, names, @last or @last~1.
        baseline: One of them, named in any way; the first by default.
    """
    comparison = compare_runs(ready(engine=False), runs, baseline)
    label_flow_run(f"Compare {', '.join(comparison.labels)}", [f"run:{run.run_id}" for run in comparison.runs])
    publish_summary(
        markdown(comparison), f"Comparison of {', '.join(comparison.labels)}", "comparison", return_state=True
    )
    return comparison
