"""What Prefect's pages make a form of: the JSON schema of each flow's parameters, as the server gets it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import is_valid_schema, validate

from ntrader.config import RunRequest, portable, written_out
from ntrader.strategies.registry import STRATEGIES
from ntrader.sweeps.config import OBJECTIVES
from ntrader.sweeps.request import AS_IT_STANDS, read_search

ROOT = Path(__file__).parent.parent.parent
DEPLOYMENTS = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
MODELS = {"RunRequest", "SearchRequest", "BudgetRequest", "PeriodRequest"}


def schema_of(entrypoint: str) -> dict[str, Any]:
    flow: Flow[..., Any] = load_flow_from_entrypoint(entrypoint)
    return parameter_schema(flow.fn).model_dump_for_openapi()


@pytest.fixture(scope="module")
def sweep_schema() -> dict[str, Any]:
    return schema_of("flows.sweep.sweep")


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda deployment: deployment["name"])
def test_every_field_says_what_it_is_and_has_its_place(deployment: dict[str, Any]) -> None:
    schema = schema_of(deployment["entrypoint"])

    is_valid_schema(schema)
    for section in (schema, *schema.get("definitions", {}).values()):
        fields = section["properties"]
        assert [field["position"] for field in fields.values()] == list(range(len(fields)))
        for name, field in fields.items():
            assert field.get("title") or "$ref" in field, name
            assert field["description"], name


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda deployment: deployment["name"])
def test_what_a_deployment_begins_with_is_what_its_form_takes(deployment: dict[str, Any]) -> None:
    validate(deployment.get("parameters", {}), schema_of(deployment["entrypoint"]), True, ignore_required=True)


def test_what_may_be_left_out_is_blank_and_no_choice_of_types(sweep_schema: dict[str, Any]) -> None:
    for model in MODELS:
        for name, field in sweep_schema["definitions"][model]["properties"].items():
            assert {"type": "null"} not in field.get("anyOf", []), name
            assert "default" not in field, name
    assert "required" not in sweep_schema["definitions"]["RunRequest"]


def test_lists_of_known_words_are_offered(sweep_schema: dict[str, Any]) -> None:
    run = sweep_schema["definitions"]["RunRequest"]["properties"]
    search = sweep_schema["definitions"]["SearchRequest"]["properties"]

    assert run["strategy"]["anyOf"][0]["enum"] == [entry.key for entry in STRATEGIES]
    assert run["strategy"]["anyOf"][1]["type"] == "string"
    assert (run["start"]["format"], run["end"]["format"]) == ("date", "date")
    assert run["fill_timing"]["enum"] == ["next_open", "close"]
    assert run["account_type"]["enum"] == ["CASH", "MARGIN"]
    assert search["objective"]["enum"] == list(OBJECTIVES)
    assert search["direction"]["enum"] == ["maximize", "minimize"]
    assert search["sampler"]["enum"] == ["grid", "random", "tpe"]


def test_the_server_accepts_what_the_command_line_sends(sweep_schema: dict[str, Any]) -> None:
    request = portable(
        RunRequest(
            config_path=str(ROOT / "config" / "sweeps" / "sma_grid.yaml"), initial_capital="12345678901.123456789",
            start="2008-01-01T15:30", fill_timing="close", parameters={"risk_percent": None}, data_path="x.csv",
        )
    )  # fmt: skip
    search = read_search({"params": {"a": [1, 2]}, "seed": 0, "budget": {"trials": 3, "wall": 90}, "timeout": "30s",
                          "periods": [{"last": "3y"}], "objective": "cagr"})  # fmt: skip
    sent = {"request": written_out(request), "search": search.overrides(), "workers": 2}

    validate(sent, sweep_schema, raise_on_error=True)
    assert sent["request"]["config"]["initial_capital"] == "12345678901.123456789"
    assert sent["request"]["parameters"] == {"risk_percent": None}
    assert sent["search"]["seed"] == 0
    assert (RunRequest(**sent["request"]), read_search(sent["search"])) == (request, search)
    validate({"request": {}, "search": AS_IT_STANDS.overrides(), "workers": None}, sweep_schema, raise_on_error=True)
