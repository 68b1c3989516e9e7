"""Whatever a workflow says, the statement keeps its shape."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.postgres_statements import (
    Column,
    Table,
    array,
    bound,
    choose,
    count,
    delete,
    insert,
    scalar,
    select,
    tables,
    update,
)
from permaflow.errors import InputError

names = st.text(min_size=1, max_size=30).filter(lambda text: "\0" not in text) | st.sampled_from(
    [
        '"',
        '""',
        "a;b",
        "a--",
        "/*",
        "*/",
        "'",
        "\\",
        '"; drop table x; --',
        "$1",
        "%s",
        "%(x)s",
        "{}",
    ]
)
values = st.none() | st.booleans() | st.integers() | st.floats() | st.text()


def table_of(*columns, schema="public", name="orders"):
    return Table(schema, name, {c: Column(c, is_json=False, is_array=False) for c in columns})


def skeleton(statement):
    """The statement with each quoted identifier as I."""
    return re.sub(r'"(?:[^"]|"")*"', "I", statement[0].as_string(None))


@given(names, names, names, names, values, values)
def test_no_name_and_no_value_changes_the_shape(schema, name, first, second, one, two):
    table = table_of(first, second, schema=schema, name=name)
    match, change = {first: one}, {second: two}
    test = "I.I is null" if one is None else "I.I = %s"

    assert skeleton(insert(table, change)) == (
        "insert into I.I as target (I) values (%s) returning to_jsonb(target.*)::text"
    )
    assert skeleton(select(table, match)) == (
        f"select to_jsonb(target.*)::text from I.I as target where {test} limit 1"
    )
    assert skeleton(count(table, match, 5)) == (
        f"select count(*) from (select from I.I as target where {test} limit 5) as found"
    )
    assert skeleton(update(table, match, change)) == (
        f"update I.I as target set I = %s where {test} returning to_jsonb(target.*)::text"
    )
    assert skeleton(delete(table, match)) == (
        f"delete from I.I as target where {test} returning to_jsonb(target.*)::text"
    )
    assert len(delete(table, match)[1]) == (one is not None)


@given(names)
def test_a_column_that_the_catalogue_does_not_know_is_refused(name):
    table = table_of(name + "x")

    for make in (
        lambda: insert(table, {name: 1}),
        lambda: select(table, {name: 1}),
        lambda: update(table, {name + "x": 1}, {name: 1}),
        lambda: update(table, {name: 1}, {name + "x": 1}),
        lambda: delete(table, {name: None}),
    ):
        with pytest.raises(InputError, match="has no column"):
            make()


def test_all_rows_at_once_are_never_touched():
    table = table_of("a")

    for make in (lambda: delete(table, {}), lambda: update(table, {}, {"a": 1})):
        with pytest.raises(InputError, match="at least one column"):
            make()
    with pytest.raises(InputError, match="at least one value"):
        update(table, {"a": 1}, {})


def test_one_table_is_chosen_or_the_choice_is_asked_for():
    rows = [
        ("public", "orders", "id", False, False),
        ("sales", "orders", "id", False, False),
        ("a", "x", "id", False, False),
        ("b", "x", "id", False, False),
    ]
    public, sales, *two = tables(rows)

    assert choose("orders", [public, sales]) is public
    assert choose("sales.orders", [sales]) is sales
    assert choose("orders", [sales]) is sales
    with pytest.raises(InputError, match=r"several schemas: a, b"):
        choose("x", two)
    with pytest.raises(InputError, match="no table"):
        choose("nothing", [])


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        (Column("c", False, False), 9007199254740993, "9007199254740993"),
        (Column("c", False, False), 0.1, "0.1"),
        (Column("c", False, False), True, "true"),
        (Column("c", False, False), "x", "x"),
        (Column("c", False, False), None, None),
        (Column("c", True, False), {"a": [1]}, '{"a":[1]}'),
        (Column("c", True, False), "x", '"x"'),
        (Column("c", True, False), None, None),
        (Column("c", False, True), [1, None, 'a"\\', [2]], '{"1",NULL,"a\\"\\\\",{"2"}}'),
    ],
)
def test_values_travel_as_text(column, value, text):
    assert bound(column, value) == text


def test_values_that_fit_no_column_are_refused():
    plain = Column("c", False, False)
    for value in ([1], {"a": 1}, object()):
        with pytest.raises(InputError):
            bound(plain, value)
    with pytest.raises(InputError):
        bound(Column("c", True, False), {"a": object()})
    assert array([]) == "{}"
    assert scalar(1) == "1"
