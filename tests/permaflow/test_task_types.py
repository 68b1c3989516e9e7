"""What the schemas say about a config: pointers, messages, and templates that are not known yet."""

from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, RootModel, model_validator

from permaflow.errors import InputError
from permaflow.task import Done, TaskType
from permaflow.task_types import TaskTypeRegistry, parse_config


class Inner(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    size: int


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    count: int = Field(1, ge=1)
    mode: Literal["fast", "slow"] = "fast"
    inner: Inner | None = None
    many: list[Inner] = []
    either: int | list[int] = 0

    @model_validator(mode="after")
    def _whole(self):
        if self.name == "odd":
            raise ValueError("the name is odd")
        return self


class Circle(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["circle"]
    radius: float


class Square(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["square"]
    side: float


class Shape(RootModel[Annotated[Circle | Square, Field(discriminator="kind")]]):
    pass


async def run(config, ctx):
    return Done()


types = TaskTypeRegistry()
types.add(TaskType("plain", "s", Config, Config, run))
types.add(TaskType("shape", "s", Shape, Shape, run))


def pointers(name, config):
    return [problem.pointer for problem in types.config_problems(name, config)]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"name": "x"}, []),
        ({}, ["/name"]),
        ({"name": 5, "count": 0, "mode": "warp"}, ["/name", "/count", "/mode"]),
        ({"name": "x", "inner": {}}, ["/inner/size"]),
        ({"name": "x", "many": [{"size": 1}, {"size": "x"}]}, ["/many/1/size"]),
        ({"name": "x", "a/b~c": 1}, ["/a~1b~0c"]),
        ({"name": "x", "either": "text"}, ["/either"]),
        ({"name": "odd"}, [""]),
        ("text", [""]),
        (None, [""]),
        ([], [""]),
    ],
)
def test_every_problem_is_reported_once_with_its_place(config, expected):
    assert pointers("plain", config) == expected


@pytest.mark.parametrize(
    "config",
    [
        {"name": "x", "count": "{{trigger.n}}"},
        {"name": "x", "count": "{{ a }}{{ b }}"},
        {"name": "x", "mode": "{{trigger.mode}}"},
        {"name": "x", "inner": "{{trigger.inner}}"},
        {"name": "x", "inner": {"size": "{{trigger.size}}"}},
        {"name": "x", "many": "{{trigger.all}}"},
        {"name": "x", "many": ["{{trigger.first}}", {"size": 2}]},
        {"name": "x", "either": "{{trigger.either}}"},
        "{{trigger.config}}",
    ],
)
def test_a_template_may_stand_wherever_a_value_may(config):
    assert pointers("plain", config) == []


def test_templates_do_not_hide_the_problems_beside_them():
    config = {"count": "{{n}}", "mode": "warp", "inner": "{{x}}", "extra": "{{y}}"}

    assert pointers("plain", config) == ["/name", "/mode"]


def test_a_field_too_much_or_missing_is_named():
    problems = types.config_problems("plain", {"nmae": "x"})
    assert {each.message for each in problems} == {
        "There is no field `nmae` here.",
        "The field `name` is missing.",
    }


def test_a_brace_is_not_yet_a_template():
    assert pointers("plain", {"name": "x", "count": "{{"}) == ["/count"]


def test_the_members_of_a_union_do_not_show_in_a_pointer():
    assert pointers("shape", {"kind": "circle"}) == ["/radius"]
    assert pointers("shape", {"kind": "square", "side": "wide"}) == ["/side"]
    assert pointers("shape", {"kind": "square", "side": "{{w}}"}) == []


def test_an_unknown_task_type_is_a_problem_like_any_other():
    [problem] = types.config_problems("plian", {})

    assert problem.code == "not_found"
    assert "plain" in problem.message


def test_a_rendered_config_is_parsed_and_templates_get_no_pardon():
    plain = types.get("plain")

    assert parse_config(plain, {"name": "x", "count": "3"}).count == 3
    with pytest.raises(InputError, match=r"plain is wrong at /count: .*and 1 more") as caught:
        parse_config(plain, {"name": "x", "count": "{{n}}", "mode": 1})
    assert caught.value.pointer == "/count"


def test_the_catalogue_shows_both_schemas():
    info = types.info("plain")

    assert info.config["required"] == ["name"]
    assert info.result["properties"]["count"]["type"] == "integer"


def test_a_type_that_nobody_offers_takes_nothing_as_it_stands():
    assert types.verbatim("plian") == ()
