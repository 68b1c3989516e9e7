from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from permaflow.changes import UNAVAILABLE
from permaflow.errors import DocumentError, EvaluationError
from permaflow.plan import Constant, Json
from specs.reading import Report
from specs.templates import (
    MAX_TEXT_BYTES,
    compile_config,
    compile_template,
    read_config,
    render,
)

CONTEXT: dict[str, Any] = {
    "trigger": {
        "record": {"name": "Ada", "id": 7, "amount": 1.5, "tags": ["a", "b"], "note": None},
        "event": "created",
    },
    "steps": {
        "code_1": {"output": {"total": 42}},
        "my-step": {"output": {"items": [{"id": "x"}, {"id": "y"}]}},
        "a b.c": {"output": True},
    },
    "run": {"id": "r-1"},
}


def value_of(template: str, context: dict[str, Any] = CONTEXT) -> Json:
    return compile_template(template).evaluate(context)


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("{{trigger.record.name}}", "Ada"),
        ("{{ trigger.record.id }}", 7),
        ("{{trigger.record.tags}}", ["a", "b"]),
        ("{{trigger.record.note}}", None),
        ("{{steps.code_1.output.total}}", 42),
        ("{{steps.my-step.output.items.1.id}}", "y"),
        ("{{steps.my-step.output.items[0].id}}", "x"),
        ("{{steps['a b.c'].output}}", True),
        ('{{steps["a b.c"]["output"]}}', True),
        ("{{run.id}}", "r-1"),
    ],
)
def test_a_whole_template_keeps_the_type_of_its_value(template: str, value: Json) -> None:
    found = value_of(template)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("Order {{trigger.record.id}} of {{trigger.record.name}}", "Order 7 of Ada"),
        ("tags: {{trigger.record.tags}}", 'tags: ["a","b"]'),
        ("note: {{trigger.record.note}}", "note: null"),
        ("{{steps['a b.c'].output}}!", "true!"),
        ("{{trigger.record.name}}{{trigger.record.amount}}", "Ada1.5"),
    ],
)
def test_inside_text_strings_stand_as_they_are_and_the_rest_as_json(
    template: str, text: str
) -> None:
    assert value_of(template) == text


def test_four_braces_stand_for_two() -> None:
    assert value_of("{{{{trigger.record.name}}") == "{{trigger.record.name}}"
    assert value_of("{{{{{{trigger.record.name}}}}") == "{{Ada}}"
    assert compile_template("a {{{{ b") == Constant("a {{ b")


def test_text_without_templates_is_a_constant() -> None:
    assert compile_template("}} plain { text }") == Constant("}} plain { text }")


def test_a_value_that_looks_like_a_template_is_data() -> None:
    context = {"trigger": {"record": {"name": "{{run.id}}"}}, "run": {"id": "secret"}}
    assert value_of("{{trigger.record.name}}", context) == "{{run.id}}"
    assert value_of("x {{trigger.record.name}}", context) == "x {{run.id}}"


def test_a_path_that_leads_nowhere_says_where_it_ended() -> None:
    with pytest.raises(EvaluationError) as caught:
        value_of("{{trigger.record.nme}}")
    assert str(caught.value) == (
        "`trigger.record.nme` leads nowhere: `record` has no `nme`; "
        "it has name, id, amount, tags, note."
    )


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{error.message}}", "there is no `error` here"),
        ("{{trigger.record.tags.2}}", "`tags` is a list of 2 and has no `2`"),
        ("{{trigger.record.name.upper}}", "`name` is a string and has no `upper`"),
        ("{{trigger.record.note.x}}", "`note` is null and has no `x`"),
        ("{{trigger.recrd.name}}", "`trigger` has no `recrd`"),
    ],
)
def test_what_leads_nowhere_is_named(template: str, reason: str) -> None:
    with pytest.raises((EvaluationError, DocumentError)) as caught:
        value_of(template)
    assert reason in str(caught.value)


def test_a_question_mark_makes_a_missing_value_null() -> None:
    assert value_of("{{trigger.record.nme?}}") is None
    assert value_of("{{trigger.record.name?}}") == "Ada"


def test_inside_text_a_missing_optional_value_is_nothing_but_null_is_null() -> None:
    assert value_of("[{{trigger.record.nme?}}]") == "[]"
    assert value_of("[{{trigger.record.note?}}]") == "[null]"


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ('{{trigger.record.nme ?? "none"}}', "none"),
        ("{{trigger.record.nme ?? 'no }} end'}}", "no }} end"),
        ('{{trigger.record.nme ?? "a \\"quoted\\" word"}}', 'a "quoted" word'),
        ("{{trigger.record.nme ?? 12}}", 12),
        ("{{trigger.record.nme ?? -1.5}}", -1.5),
        ("{{trigger.record.nme ?? false}}", False),
        ("{{trigger.record.note ?? 'was null'}}", "was null"),
        ("{{trigger.record.name ?? 'unused'}}", "Ada"),
        ("Hi {{trigger.record.nme ?? 'you'}}", "Hi you"),
    ],
)
def test_a_literal_stands_in_for_what_is_missing_or_null(template: str, value: Json) -> None:
    assert value_of(template) == value


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("x {{trigger.a", "character 3 is never closed"),
        ("{{}}", "character 3"),
        ("{{trigger.record | upper}}", "`|` at character 18"),
        ("{{trigger.f()}}", "`(` at character 12"),
        ("{{trigger..a}}", "`.` at character 10"),
        ("{{trigger.a ?? b}}", "`b` at character 16; expected a literal"),
        ("{{1 + 1}}", "`1` starts with `1`"),
        ("{{tigger.a}}", "it can look at trigger, steps, loop, error, run"),
        ("{{''.__class__}}", "`'` at character 3"),
        ("{{trigger" + ".a" * 70 + "}}", "more than 64 names"),
    ],
)
def test_a_bad_template_says_what_is_wrong_and_where(template: str, said: str) -> None:
    with pytest.raises(DocumentError) as caught:
        compile_template(template)
    assert said in caught.value.problems[0].message


@pytest.mark.parametrize("name", ["__class__", "__dict__", "keys", "get", "items", "pop", "format"])
def test_no_attribute_of_an_object_can_be_reached(name: str) -> None:
    for holder in ("trigger", "trigger.record", "trigger.record.tags", "trigger.record.name"):
        with pytest.raises(EvaluationError):
            value_of(f"{{{{{holder}.{name}}}}}")


def test_views_offer_only_get() -> None:
    class View:
        def get(self, name: str, default: Json = None, /) -> Json:
            return {"output": 1} if name == "a" else default

    context = {"steps": View()}
    assert value_of("{{steps.a.output}}", context) == 1
    with pytest.raises(EvaluationError, match="leads nowhere: `steps` has no `b`"):
        value_of("{{steps.b.output}}", context)
    with pytest.raises(EvaluationError, match="not a value by itself"):
        value_of("{{steps}}", context)


@pytest.mark.parametrize(
    "template",
    ["{{trigger.record.body}}", "x {{trigger.record.body}}", "{{trigger.record.body ?? 'x'}}"],
)
def test_what_the_source_did_not_send_is_an_error(template: str) -> None:
    context = {"trigger": {"record": {"body": UNAVAILABLE}}}
    with pytest.raises(EvaluationError, match="did not send"):
        value_of(template, context)


def test_a_record_that_was_sent_in_part_cannot_be_handed_on_whole() -> None:
    context = {"trigger": {"record": {"id": 1, "deep": [{"body": UNAVAILABLE}]}}}
    with pytest.raises(EvaluationError, match=r"deep\.0\.body"):
        value_of("{{trigger.record}}", context)
    assert value_of("{{trigger.record.id}}", context) == 1


def test_a_template_may_have_16_kb() -> None:
    compile_template("x" * (16 * 1024 - 10) + "{{run.id}}")
    with pytest.raises(DocumentError, match="16 KB"):
        compile_template("x" * (16 * 1024 - 9) + "{{run.id}}")
    with pytest.raises(DocumentError, match="16 KB"):
        compile_template("ü" * 8200 + "{{run.id}}")


def test_a_text_may_become_256_kb() -> None:
    fits = {"run": {"id": "x" * (MAX_TEXT_BYTES - 1)}}
    assert len(value_of(".{{run.id}}", fits)) == MAX_TEXT_BYTES
    with pytest.raises(EvaluationError, match="256 KB"):
        value_of("..{{run.id}}", fits)
    with pytest.raises(EvaluationError, match="256 KB"):
        value_of(".{{run.id}}", {"run": {"id": "ü" * (MAX_TEXT_BYTES // 2)}})


def test_large_values_are_handed_on_whole() -> None:
    large = ["x" * 1000] * 1000
    assert value_of("{{run.id}}", {"run": {"id": large}}) is large


def test_many_references_to_a_large_value_are_refused_before_they_multiply() -> None:
    large = {"trigger": {"rows": ["x" * 1000] * 5000}}
    config = compile_config(["{{trigger.rows}}"] * 3)
    assert len(render(config, large)) == 3
    with pytest.raises(EvaluationError, match="more than 16 MB"):
        render(compile_config(["{{trigger.rows}}"] * 4), large)


# --- configs ------------------------------------------------------------------------------------


def test_templates_are_found_at_any_depth() -> None:
    config = compile_config(
        {
            "channel": "#sales",
            "text": "New order: {{trigger.record.name}}",
            "rows": [1, {"total": "{{steps.code_1.output.total}}"}, "{{{{"],
            "empty": {},
        }
    )
    assert render(config, CONTEXT) == {
        "channel": "#sales",
        "text": "New order: Ada",
        "rows": [1, {"total": 42}, "{{"],
        "empty": {},
    }


def test_a_config_without_templates_is_returned_as_it_is() -> None:
    config = {"a": [1, {"b": "plain"}], "c": None}
    compiled = compile_config(config)
    assert compiled is config
    assert render(compiled, CONTEXT) is config


def test_rendering_twice_gives_values_of_their_own() -> None:
    config = compile_config({"a": {"b": "{{run.id}}", "c": 1}})
    first = render(config, CONTEXT)
    first["a"]["c"] = 2
    assert render(config, CONTEXT) == {"a": {"b": "r-1", "c": 1}}


def test_the_order_of_members_is_kept() -> None:
    config = compile_config({"a": "{{run.id}}", "b": 1, "c": "{{run.id}}"})
    assert list(render(config, CONTEXT)) == ["a", "b", "c"]


def test_every_bad_template_of_a_config_is_told_with_its_pointer() -> None:
    with pytest.raises(DocumentError) as caught:
        compile_config({"a/b": ["{{x}}", "ok"], "c": {"d": "{{"}})
    assert [problem.pointer for problem in caught.value.problems] == ["/a~1b/0", "/c/d"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=10,
)


@given(json_values)
def test_a_whole_template_hands_on_any_value(value: Json) -> None:
    assert value_of("{{run.v}}", {"run": {"v": value}}) is value


@given(st.text(alphabet="{}tr.ige?\"' []0a\\|", max_size=40))
def test_any_text_is_a_template_or_a_document_error(text: str) -> None:
    try:
        compiled = compile_template(text)
    except DocumentError:
        return
    try:
        compiled.evaluate(CONTEXT)
    except EvaluationError:
        pass


@given(st.text(max_size=60))
def test_escaped_text_comes_out_as_it_went_in(text: str) -> None:
    escaped = text.replace("{{", "{{{{")
    assert compile_template(escaped).evaluate({}) == text


def test_what_is_verbatim_is_no_template() -> None:
    report = Report()
    config = {"code": "return `${{a: 1}}` + '{{nonsense'", "input": "{{trigger.x}}"}
    compiled = read_config(config, "", report, verbatim=("code",))
    assert not report.problems
    assert render(compiled, {"trigger": {"x": 5}}) == {**config, "input": 5}
