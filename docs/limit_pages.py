"""The page of limits: every one with the constant or setting that it is read from."""

from __future__ import annotations

from collections.abc import Iterator

from markdown import opening, row, table

from connectors import guarded_network, http_rules, webhook_signatures
from permaflow import values
from pipeline.core import delays
from pipeline.gateway import connection, event_stream, run_starts, starts
from pipeline.settings import Settings
from pipeline.store import records, secret_hosts
from specs import (
    branching,
    comparing,
    depends,
    documents,
    durations,
    expressions,
    json_limits,
    logic,
    options,
    template_syntax,
    templates,
    triggers,
)
from specs.cel import syntax
from specs.cel import values as cel_values


def limits_page() -> Iterator[str]:
    """What is refused, and from which size on."""
    yield from opening("Limits", "the constants that hold them")
    yield "What is larger is refused with an error that says so. A limit with a variable can be"
    yield "changed; see [settings](settings.md)."
    for title, lines in SECTIONS.items():
        yield ""
        yield f"## {title}"
        yield ""
        yield from table("What", "Limit", "Variable")
        for what, limit, name in lines:
            yield row(what, said(limit), f"`PERMAFLOW_{name.upper()}`" if name else "")


def said(limit: float | str) -> str:
    return limit if isinstance(limit, str) else f"{limit:,.15g}"


def setting(name: str) -> tuple[float, str]:
    """The default of a setting, and its name."""
    return Settings.model_fields[name].default, name


SECTIONS: dict[str, list[tuple[str, float | str, str]]] = {
    "Documents": [
        ("Bytes of a document", *setting("max_document_bytes")),
        ("Nodes of a graph, tasks of a dag", *setting("max_nodes")),
        ("Edges of a graph, names in all `depends` of a dag", json_limits.MAX_EDGES, ""),
        ("Triggers", json_limits.MAX_TRIGGERS, ""),
        ("Characters of an expression", syntax.MAX_CHARACTERS, ""),
        ("Nesting of an expression", syntax.MAX_DEPTH, ""),
        ("Steps that an expression takes, items of lists included", cel_values.BUDGET, ""),
        ("Bytes that an expression makes, about", expressions.MAX_RESULT, ""),
        ("Conditions of a trigger", triggers.MAX_CONDITIONS, ""),
        ("Parts of the condition of a branch", branching.MAX_CONDITIONS, ""),
        ("Cases of a switch", logic.MAX_CASES, ""),
        ("Ports of a task", options.MAX_PORTS, ""),
        ("Loops within loops", documents.MAX_LOOP_NESTING, ""),
        ("Characters of a regular expression", comparing.MAX_PATTERN, ""),
        ("Characters of one `depends`", depends.MAX_CHARACTERS, ""),
        ("Terms of one `depends`", depends.MAX_TERMS, ""),
        ("Bytes of a text with templates, as written", template_syntax.MAX_TEMPLATE_BYTES, ""),
        ("Names and indexes of a path", template_syntax.MAX_SEGMENTS, ""),
    ],
    "JSON of documents and requests": [
        ("Levels of nesting", values.MAX_DEPTH, ""),
        ("Smallest whole number", f"{values.LOWEST:,}", ""),
        ("Largest whole number", f"{values.HIGHEST:,}", ""),
        ("Digits of a number", json_limits.MAX_DIGITS, ""),
        ("NaN, infinities, NUL characters, lone surrogates", "refused", ""),
    ],
    "Runs": [
        ("Bytes of a run's input", *setting("max_input_bytes")),
        ("Bytes of a step's output", *setting("max_output_bytes")),
        ("Bytes above which a value is kept by reference", *setting("inline_bytes")),
        (
            "Bytes above which a rendered config travels by reference",
            *setting("max_dispatch_bytes"),
        ),
        ("Bytes that the templates of one config make", templates.MAX_CONFIG_BYTES, ""),
        ("Bytes of a text that templates make", templates.MAX_TEXT_BYTES, ""),
        (
            "Runs that start each other by the changes that they make",
            *setting("max_change_depth"),
        ),
        ("Sub-workflows that stand in each other", *setting("max_workflow_depth")),
        ("Runs that are started below one by sub-workflows", *setting("max_child_runs")),
        ("Steps of a run: nodes that fire, and further attempts", *setting("max_steps")),
        ("Items of a loop", *setting("max_loop_items")),
        ("Iterations of a loop that are open at once", logic.MAX_PARALLEL, ""),
        ("Visits of a node by `goto`", *setting("max_visits")),
        ("Days of a delay", delays.LONGEST.days, ""),
        ("Days of a timeout", durations.LONGEST_SECONDS / 86_400, ""),
    ],
    "HTTP": [
        ("Bytes of a request's address and headers", connection.MAX_HEAD, ""),
        ("Seconds that they may take to come", connection.SLOWEST_HEAD, ""),
        ("Bytes of the data of a built-in record", records.LARGEST, ""),
        ("Characters of an `Idempotency-Key`", run_starts.LONGEST_KEY, ""),
        ("Starts that wait for the database at once, for each gateway", starts.MOST_WAITING, ""),
        ("Seconds that a start waits for the database, then 503", starts.LONGEST_WAIT, ""),
        ("Seconds that a reader of a stream may not read", event_stream.SLOWEST_READER, ""),
        ("Seconds that a signed time may be away", webhook_signatures.TOLERANCE, ""),
        ("Bytes of a webhook's secret", webhook_signatures.MAX_SECRET_BYTES, ""),
        ("Hosts that a secret may be bound to", secret_hosts.MOST, ""),
        ("Redirects that an HTTP step follows", http_rules.MAX_REDIRECTS, ""),
        (
            "Ports that an HTTP step reaches",
            ", ".join(str(port) for port in sorted(guarded_network.DEFAULT_PORTS)),
            "http_allow",
        ),
    ],
}
