"""The doors through which task types and functions come in, with really installed packages."""

import sys

import pytest

from permaflow.errors import ContractError, NotFoundError
from permaflow.functions import FunctionRegistry, function
from permaflow.task import TaskType
from permaflow.task_types import TaskTypeRegistry
from permaflow.values import plain
from pipeline import builtins
from pipeline.settings import Settings

PLUGIN = """
from pydantic import BaseModel
from permaflow.task import Done, TaskType

class Config(BaseModel):
    text: str

async def run(config, ctx):
    return Done(config.text)

def make(name):
    return TaskType(name, stage="sms", config=Config, result=Config, run=run, doc="Sends.")
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs a package of one module with entry points, as pip would leave it on the path."""
    monkeypatch.syspath_prepend(str(tmp_path))
    made = []

    def do(module, source, **groups):
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        lines = [
            line
            for group, points in groups.items()
            for line in (f"[permaflow.{group}]", *(f"{k} = {v}" for k, v in points.items()))
        ]
        (info / "entry_points.txt").write_text("\n".join(lines))
        made.append(module)

    yield do
    for module in made:
        sys.modules.pop(module, None)


def test_built_in_task_types_are_not_imported_before_they_are_asked_for(monkeypatch):
    monkeypatch.delitem(sys.modules, "stages.code", raising=False)
    types = builtins.task_types(Settings())

    assert "code_function" in types.names()
    assert "stages.code" not in sys.modules
    assert types.stage("code_function") == "code"
    assert "stages.code" in sys.modules


def test_every_built_in_task_type_is_sound():
    types = builtins.task_types(Settings())

    assert types.load() == ()
    for name in types.names():
        info = types.info(name)
        assert info.doc
        assert plain(info.config) == info.config


def test_an_installed_package_adds_a_task_type(install):
    install(
        "acme_sms",
        PLUGIN + "task_type = make('acme/send')",
        task_types={"acme/send": "acme_sms:task_type"},
    )
    types = TaskTypeRegistry()

    assert "acme_sms" not in sys.modules
    assert types.names() == ("acme/send",)
    assert types.stage("acme/send") == "sms"
    assert types.stages() == ("sms",)


def test_a_module_of_the_settings_adds_one_task_type_or_several(install):
    install("one_type", PLUGIN + "task_type = make('one')")
    install("two_types", PLUGIN + "task_types = [make('two'), make('three')]")

    types = TaskTypeRegistry(modules=["one_type", "two_types"])

    assert types.names() == ("one", "three", "two")
    assert isinstance(types.get("three"), TaskType)


def test_a_plug_in_that_cannot_be_imported_is_named_and_the_rest_works(install):
    install("broken_sms", "raise RuntimeError('no SIM')", task_types={"sms": "broken_sms:x"})
    install("good_sms", PLUGIN + "task_type = make('good')", task_types={"good": "good_sms"})
    types = TaskTypeRegistry()

    with pytest.raises(ContractError, match=r"broken_sms.*RuntimeError: no SIM"):
        types.get("sms")
    assert types.get("good").name == "good"
    assert [str(error) for error in types.load()] != []
    assert types.config_problems("sms", {})[0].code == "contract"
    assert types.stages() == ("sms",)


@pytest.mark.parametrize(
    ("tail", "complaint"),
    [
        ("thing = 5", "Expected a TaskType, got int"),
        ("", "has no 'thing'"),
        ("thing = make('other')", "calls itself 'other'"),
        ("thing = make('no name')", "is no name"),
        ("import dataclasses\nthing = dataclasses.replace(make('x'), stage='A B')", "the stage"),
        ("import dataclasses\nthing = dataclasses.replace(make('x'), config=int)", "schemas"),
        ("import dataclasses\nthing = dataclasses.replace(make('x'), batch=0)", "batch"),
    ],
)
def test_a_plug_in_that_breaks_its_promise_is_told_which(install, tail, complaint):
    install("liar", PLUGIN + tail, task_types={"x": "liar:thing"})

    with pytest.raises(ContractError, match=complaint):
        TaskTypeRegistry().get("x")


def test_a_built_in_name_cannot_be_taken_over(install):
    install("thief", PLUGIN + "t = make('code_function')", task_types={"code_function": "thief:t"})
    types = builtins.task_types(Settings())

    assert types.stage("code_function") == "code"
    [error] = types.load()
    assert "thief:t" in str(error)


def test_an_unknown_name_lists_what_is_known():
    with pytest.raises(NotFoundError, match="code_function"):
        builtins.task_types(Settings()).get("code_functoin")


def test_functions_come_from_modules_and_from_installed_packages(install):
    source = (
        "from permaflow.functions import function\n@function('{}')\ndef f(given): return '{}'\n"
    )
    install("shop_functions", source.format("shop", "shop"))
    install("more_functions", source.format("more", "more"), functions={"any": "more_functions"})
    install("single", "def f(given): return 'single'", functions={"single": "single:f"})

    functions = FunctionRegistry(["shop_functions"])

    assert functions.slugs() == ("more", "shop", "single")
    assert functions.get("shop")(None) == "shop"
    assert functions.get("nothing") is None


def test_importing_a_marked_function_registers_nothing():
    @function("lonely")
    def lonely(given):
        return given

    assert FunctionRegistry(installed=False).get("lonely") is None


def test_a_module_of_functions_that_fails_is_named_and_the_rest_works(install):
    install("bad_functions", "import no_such_module_at_all")
    functions = FunctionRegistry(["bad_functions", "stages.functions"])

    assert functions.get("noop") is not None
    [error] = functions.load()
    assert "bad_functions" in str(error)
    with pytest.raises(ContractError, match="no_such_module_at_all"):
        functions.get("bad_functions")
    with pytest.raises(ContractError, match=r"no function 'sent'.*no_such_module_at_all"):
        functions.get("sent")


def test_two_functions_cannot_share_a_slug():
    functions = FunctionRegistry(installed=False)
    functions.add(len, "size")
    functions.add(len, "size")

    with pytest.raises(ContractError, match="size"):
        functions.add(max, "size")


@pytest.mark.parametrize("slug", ["", "a b", "../x", "-x", "ü", "x" * 101])
def test_a_slug_is_a_plain_word(slug):
    with pytest.raises(ContractError):
        function(slug)(lambda given: given)
