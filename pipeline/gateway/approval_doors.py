"""The doors of approvals, of links that decide, and of groups."""

from __future__ import annotations

from typing import Any

from pipeline.gateway import approvals, groups
from pipeline.gateway import shapes_approvals as shapes
from pipeline.gateway.approval_links import PATH as LINK
from pipeline.gateway.approval_links import ApprovalLinks
from pipeline.gateway.approvals import Approvals
from pipeline.gateway.auth import ADMIN, PUBLIC
from pipeline.gateway.doors import Doors
from pipeline.gateway.groups import Groups
from pipeline.gateway.ports import Ports
from pipeline.gateway.shapes import Page


def open_approvals(doors: Doors, ports: Ports) -> None:
    """What waits for people, and what they decide."""
    handlers, links = Approvals(ports), ApprovalLinks(ports)
    one = f"{approvals.ROOT}/{{approval_id}}"
    reads: dict[str, Any] = {"needs": "approvals:read", "tags": ["approvals"]}
    writes: dict[str, Any] = {"needs": "approvals:write", "tags": ["approvals"]}
    linked: dict[str, Any] = {"needs": PUBLIC, "tags": ["approvals"]}
    doors.add(
        "GET",
        f"{approvals.ROOT}/pending",
        handlers.list_pending_approvals,
        response_model=Page[shapes.ApprovalSummary],
        **reads,
    )
    doors.add("GET", LINK, links.show_approval_link, response_model=shapes.LinkedView, **linked)
    doors.add(
        "POST",
        LINK,
        links.use_approval_link,
        body=shapes.LinkResponse,
        response_model=shapes.LinkedView,
        **linked,
    )
    doors.add("GET", one, handlers.get_approval, response_model=shapes.ApprovalView, **reads)
    doors.add(
        "POST",
        f"{one}/respond",
        handlers.respond_to_approval,
        body=shapes.RespondBody,
        response_model=shapes.ApprovalView,
        **writes,
    )
    doors.add(
        "POST",
        f"{one}/delegate",
        handlers.delegate_approval,
        body=shapes.DelegateBody,
        response_model=shapes.ApprovalView,
        **writes,
    )
    doors.add(
        "POST",
        f"{one}/links",
        links.create_approval_links,
        body=shapes.LinkBody,
        response_model=shapes.LinksView,
        status_code=201,
        needs=ADMIN,
        tags=["approvals"],
    )


def open_groups(doors: Doors, ports: Ports) -> None:
    """Groups of users. To change one is to change who decides."""
    handlers = Groups(ports)
    one = f"{groups.ROOT}/{{group}}"
    reads: dict[str, Any] = {"needs": "approvals:read", "tags": ["groups"]}
    writes: dict[str, Any] = {"needs": ADMIN, "tags": ["groups"]}
    doors.add(
        "GET",
        groups.ROOT,
        handlers.list_groups,
        response_model=Page[shapes.GroupView],
        **reads,
    )
    doors.add("GET", one, handlers.get_group, response_model=shapes.GroupView, **reads)
    doors.add(
        "PUT",
        one,
        handlers.put_group,
        body=shapes.GroupBody,
        response_model=shapes.GroupView,
        responses={201: {"model": shapes.GroupView, "description": "It was not there."}},
        **writes,
    )
    doors.add("DELETE", one, handlers.delete_group, status_code=204, **writes)
