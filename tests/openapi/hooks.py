"""What schemathesis has to know of ticketd beyond /openapi.json."""

import gzip
import json
import os
import time

import requests
import schemathesis
import zstandard
from hypothesis import strategies as st

# How long an accepted ticket may take until it is a row, in seconds.
STORED_MAX = 20

# Between the parts of many tickets.
BOUNDARY = "between-tickets"

# How a body comes to be in the coding that its header says.
CODINGS = {"gzip": gzip.compress, "zstd": zstandard.compress}

# Without credentials the first entry of each `security` counts, which is none.
HAS_CREDENTIALS = "TICKETD_SOURCE_TOKEN" in os.environ


def tickets():
    """Texts of any kind, and some that are nearly tickets."""
    text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
    decimal = st.decimals(-1000, 1000, places=2)
    line = st.builds("{},{},{}\n".format, st.sampled_from(["Café", '"a, b"', ""]), st.just("x1"), decimal)
    lines = st.lists(line, max_size=3).map("".join)
    head = "Order: {}\nVAT: {}\nTotal: {}\n\nproduct,product_id,price\n{}"
    example = "Order: 1\nVAT: 0.10\nTotal: 1.20\n\nproduct,product_id,price\nThé,t-1,1.20\n"
    return st.one_of(text, st.just(example), st.builds(head.format, st.integers(0), decimal, decimal, lines))


def lines():
    """Many tickets as JSON lines."""
    key = st.from_regex("[!-~]{1,255}", fullmatch=True)
    optional = {"key": key, "issued_at": st.just("2026-11-27T12:00:00+01:00")}
    record = st.fixed_dictionaries({"ticket": tickets()}, optional=optional).map(json.dumps)
    return st.lists(record, min_size=1, max_size=4).map("\n".join).map(str.encode)


def parts():
    """Many tickets, each a part."""
    part = tickets().map(f"--{BOUNDARY}\r\n\r\n{{}}\r\n".format)
    joined = st.lists(part, min_size=1, max_size=4).map("".join)
    return joined.map(lambda text: f"{text}--{BOUNDARY}--\r\n".encode())


schemathesis.openapi.media_type("application/x-ndjson", lines())
schemathesis.openapi.media_type("multipart/mixed", parts())


@schemathesis.hook
def before_load_schema(_context, schema):
    for operations in schema["paths"].values():
        for operation in operations.values():
            adapt(operation)


def adapt(operation):
    if HAS_CREDENTIALS:
        named = [entry for entry in operation["security"] if entry]
        operation["security"] = named or [{}]
    # schemathesis takes no examples for a type that has a strategy, and would negate an object, though not its bytes.
    for body in operation.get("requestBody", {}).get("content", {}).values():
        body.pop("example", None)
        if body["schema"].get("type") == "object":
            body["schema"] = {"type": "string"}


schemathesis.openapi.media_type("text/plain", tickets().map(str.encode))


def plain(body):
    return body if isinstance(body, bytes) else str(body).encode()


@schemathesis.hook
def before_call(_context, case, _arguments):
    # Many tickets begin with the first line of one.
    if case.operation.label == "POST /tickets" and case.media_type == "text/plain" and case.body:
        case.body = b"Order: 1\n" + plain(case.body)
    if case.media_type == "multipart/mixed":
        case.headers["Content-Type"] = f"multipart/mixed; boundary={BOUNDARY}"
    coding = CODINGS.get(case.headers.get("Content-Encoding"))
    if coding and isinstance(case.body, bytes):
        case.body = coding(case.body)


@schemathesis.hook
def filter_case(_context, case):
    """OpenAPI cannot say that a webhook-id counts only where there is no Idempotency-Key. Of many tickets schemathesis
    takes a compressed body for a wrong one, and the ids of an answer for the parameter of that name."""
    headers = {name.lower(): value for name, value in (case.headers or {}).items()}
    if {"idempotency-key", "webhook-id"} <= set(headers):
        return False
    if case.operation.label != "POST /tickets":
        return True
    return headers.get("content-encoding") not in CODINGS and (case.query or {}).get("ids", "all") in ("all", "none")


@schemathesis.hook
def after_call(_context, case, response):
    """A ticket that was accepted is to be had, though not at once."""
    if case.operation.label != "POST /ticket" or response.status_code != 202:
        return
    url = requests.compat.urljoin(response.request.url, response.headers["location"][0])
    known = {name: value for name, value in response.request.headers.items() if name == "Authorization"}
    deadline = time.monotonic() + STORED_MAX
    while requests.get(url, headers=known, timeout=STORED_MAX).status_code != 200:
        assert time.monotonic() < deadline, f"{url} is not stored"
        time.sleep(0.01)
