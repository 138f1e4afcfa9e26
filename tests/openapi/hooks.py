"""What schemathesis has to know of ticketd beyond /openapi.json."""

import os
import time

import requests
import schemathesis
from hypothesis import strategies as st

# How long an accepted ticket may take until it is a row, in seconds.
STORED_MAX = 20

# Without credentials the first entry of each `security` counts, which is none.
HAS_CREDENTIALS = "TICKETD_SOURCE_TOKEN" in os.environ


def tickets():
    """Texts of any kind, and some that are nearly tickets."""
    text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
    decimal = st.decimals(-1000, 1000, places=2)
    line = st.builds("{},{},{}\n".format, st.sampled_from(["Café", '"a, b"', ""]), st.just("x1"), decimal)
    lines = st.lists(line, max_size=3).map("".join)
    head = "Order: {}\nVAT: {}\nTotal: {}\n\nproduct,product_id,price\n{}"
    return st.one_of(text, st.builds(head.format, st.integers(0), decimal, decimal, lines))


@schemathesis.hook
def before_load_schema(_context, schema):
    for operations in schema["paths"].values():
        for operation in operations.values():
            adapt(operation)


def adapt(operation):
    if HAS_CREDENTIALS:
        named = [entry for entry in operation["security"] if entry]
        operation["security"] = named or [{}]
    body = operation.get("requestBody", {}).get("content", {}).get("text/plain")
    if body:
        # schemathesis takes no examples for a type that has a strategy.
        bodies = tickets() | st.just(body.pop("example"))
        schemathesis.openapi.media_type("text/plain", bodies.map(str.encode))


@schemathesis.hook
def filter_case(_context, case):
    """OpenAPI cannot say that a webhook-id counts only where there is no Idempotency-Key."""
    return not {"idempotency-key", "webhook-id"} <= {name.lower() for name in case.headers or {}}


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
