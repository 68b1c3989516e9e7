from __future__ import annotations

import csv
import io
from html.parser import HTMLParser

import pytest

from permaflow.errors import StoreError
from permaflow.ports import StoredDocument
from permaflow.task import Done, Reject, Retry
from permaflow.testing.task import check_task_type, config_of, make_context
from stages.report import task_type

ROWS = [
    {"name": "Ada", "total": 12.5, "paid": True},
    {"name": "Grüße, Ltd", "total": -3, "note": {"a": [1]}},
]


class Shelf:
    """Keeps what is put, under its key; fails while it is told to."""

    def __init__(self, error=None):
        self.kept = {}
        self._error = error

    async def put(self, document, *, key):
        if self._error is not None:
            raise self._error
        self.kept.setdefault(key, document)
        return StoredDocument("d1", "/documents/v1/d1")


async def write(shelf=None, *, rows=ROWS, attempt=1, **config):
    shelf = shelf or Shelf()
    context = make_context(documents=shelf, attempt=attempt)
    verdict = await task_type.run(config_of(task_type, rows=rows, **config), context)
    return verdict, [document.body.decode() for document in shelf.kept.values()]


def test_it_keeps_the_promises_of_a_task_type():
    check_task_type(task_type, sound={"rows": ROWS}, unsound={"rows": [1]})


async def test_rows_become_a_file_that_is_kept_and_linked():
    verdict, [text] = await write(name="orders")

    assert text == ('name,total,paid,note\r\nAda,12.5,true,\r\n"Grüße, Ltd",-3,,"{""a"":[1]}"\r\n')
    assert verdict == Done(
        {
            "id": "d1",
            "link": "/documents/v1/d1",
            "name": "orders.csv",
            "content_type": "text/csv; charset=utf-8",
            "size": len(text.encode()),
            "row_count": 2,
        }
    )


async def test_columns_say_what_is_shown_in_which_order_under_which_heading():
    _, [text] = await write(columns=["total", {"field": "name", "title": "Customer"}])
    assert text.splitlines() == ["total,Customer", "12.5,Ada", '-3,"Grüße, Ltd"']


@pytest.mark.parametrize(
    "formula",
    [
        '=HYPERLINK("http://evil.example","x")',
        "+1+cmd|' /C calc'!A0",
        "-2+3",
        "@SUM(1)",
        "\t=1",
        "\r=1",
        "\n=1",
        "＝1",
    ],
)
async def test_no_text_of_a_csv_is_a_formula_to_a_spreadsheet(formula):
    _, [text] = await write(rows=[{formula: formula}])
    assert list(csv.reader(io.StringIO(text, newline=""))) == [["'" + formula], ["'" + formula]]


async def test_numbers_stay_numbers_whatever_their_sign():
    rows = [{"a": -1, "b": "-1.5", "c": "+2e5", "d": "-1a"}]
    _, [text] = await write(rows=rows)
    assert text.splitlines()[1] == "-1,-1.5,+2e5,'-1a"


class Tags(HTMLParser):
    """The elements and texts of a page."""

    def __init__(self):
        super().__init__()
        self.tags, self.texts = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, attrs))

    def handle_data(self, data):
        self.texts.append(data)


async def test_no_value_is_markup_in_html():
    evil = '</td><script>alert(1)</script><img src=x onerror="x">'
    _, [text] = await write(rows=[{evil: evil}], format="html", title=evil)

    page = Tags()
    page.feed(text)
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "img"})
    assert page.texts.count(evil) == 4  # title, heading, column and cell


async def test_no_value_is_markup_in_markdown():
    evil = "a|b\n# c <i> [x](y) `z` *s* _u_ ![i](j) http://k @l"
    _, [text] = await write(rows=[{"c": evil}], format="markdown", title="T *x*")

    heading, empty, head, rule, line = text.splitlines()
    assert (heading, empty, head, rule) == ("# T \\*x\\*", "", "| c |", "| --- |")
    assert line == (
        "| a\\|b \\# c &lt;i&gt; \\[x\\](y) \\`z\\` \\*s\\* \\_u\\_ \\!\\[i\\](j) http\\://k \\@l |"
    )


async def test_all_attempts_of_a_step_keep_one_document():
    shelf = Shelf()
    await write(shelf, attempt=1)
    _, texts = await write(shelf, attempt=2)
    assert len(texts) == 1


async def test_no_rows_are_a_report_without_rows():
    verdict, [text] = await write(rows=[], columns=["a"])
    assert text == "a\r\n"
    assert isinstance(verdict, Done)
    assert verdict.output["row_count"] == 0


async def test_what_is_too_large_to_keep_is_rejected():
    wide, _ = await write(rows=[{str(n): n for n in range(201)}])
    long, _ = await write(rows=[{"a": "x" * 16_000_001}])
    assert isinstance(wide, Reject)
    assert isinstance(long, Reject)


async def test_a_store_that_fails_is_tried_again():
    verdict, _ = await write(Shelf(StoreError("not now")))
    assert isinstance(verdict, Retry)
