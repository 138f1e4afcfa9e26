#!/usr/bin/env python3
"""Records what the published Python library of Standard Webhooks makes of signed requests.

`make webhook_vectors` runs it with that library, from PyPI, and compares what it says with
vectors.json, which the unit tests hold ticketd against: they need neither Python nor a network.
With --write it replaces the file.
"""

import base64
import json
import pathlib
import sys
from datetime import datetime, timezone

from standardwebhooks import webhooks
from standardwebhooks.webhooks import Webhook

RECORDED = pathlib.Path(__file__).parent / "vectors.json"

NOW = 1795000000
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
TICKET = "Order: 123456\nVAT: 3.10\nTotal: 16.90\n\nproduct,product_id,price\nCafé,IZ8z,2\n"

# Published with its signature, in the tests of the project's libraries.
PUBLISHED = ('{"test": 2432232314}', 1614265330, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")


class Clock(datetime):
    """A clock that stands still."""

    at = NOW

    @classmethod
    def now(cls, tz=None):
        return datetime.fromtimestamp(cls.at, tz=tz)


webhooks.datetime = Clock


def secret(length):
    return "whsec_" + base64.b64encode(bytes(range(length))).decode()


def sign(body, key=SECRET, id=ID, at=NOW):
    return Webhook(key).sign(id, datetime.fromtimestamp(at, tz=timezone.utc), body)


def says_oracle(case):
    Clock.at = case["now"]
    headers = {"webhook-" + name: case[name] for name in ("id", "timestamp", "signature")}
    try:
        Webhook(case["secret"]).verify(case["body"], headers, json_parse=False)
        return True
    except Exception:
        return False


def cases():
    def case(name, *, key=SECRET, now=NOW, id=ID, at=None, body=TICKET, signature=None, **ours):
        at = str(NOW) if at is None else at
        signature = sign(body) if signature is None else signature
        return {"name": name, "secret": key, "now": now, "id": id, "timestamp": at,
                "signature": signature, "body": body, **ours}

    body, at, signature = PUBLISHED
    yield case("the published one", now=at, at=str(at), body=body, signature=signature)
    for length in (24, 25, 26, 32, 63, 64):
        for padding in ("", "unpadded"):
            key = secret(length).rstrip("=") if padding else secret(length)
            yield case(f"a secret of {length} bytes {padding}".strip(), key=key, signature=sign(TICKET, key=key))
    for name, body in {
        "empty": "", "a point": ".", "points": f"{NOW}.{TICKET}", "line breaks": "a\r\nb\n\n", "blanks": "  ",
        "beyond ASCII": "Café 𝄞 \u00e9\u0301", "one block less its end": "x" * 8, "long": "0123456789" * 700,
    }.items():
        yield case(f"a body: {name}", body=body)
        yield case(f"another body: {name}", body=body + " ", signature=sign(body))
    for offset in (-301, -300, -299, 0, 299, 300, 301, -86400, 86400):
        yield case(f"{offset} s from now", now=NOW - offset)
    for length in range(40, 72):
        yield case(f"an id of {length}", id="i" * length, signature=sign(TICKET, id="i" * length))
    good, wrong = sign(TICKET), sign(TICKET, key=OTHER)
    for name, signature in {
        "another key's": wrong,
        "the last of three": f"{wrong} v1a,{'A' * 86}== {good}",
        "the first of three": f"{good} {wrong} v2,AAAA",
        "of another version": good.replace("v1,", "v2,"),
        "of version 1a": good.replace("v1,", "v1a,"),
        "without a version": good.removeprefix("v1,"),
        "in capitals": good.replace("v1,", "V1,"),
        "without its padding": good.rstrip("="),
        "shorter": "v1," + base64.b64encode(base64.b64decode(good[3:])[:-1]).decode(),
        "longer": "v1," + base64.b64encode(base64.b64decode(good[3:]) + b"\0").decode(),
        "empty": "",
        "only its version": "v1,",
        "of zeros": "v1," + base64.b64encode(bytes(32)).decode(),
        "with one bit changed": "v1," + base64.b64encode(bytes([base64.b64decode(good[3:])[0] ^ 1]) + base64.b64decode(good[3:])[1:]).decode(),
        "with commas for blanks": f"{wrong},{good}",
    }.items():
        yield case(f"a signature {name}", signature=signature)
    yield case("another id", id="msg_other")
    yield case("another time", at=str(NOW + 1))
    for at in ("", "soon", "-1", str(NOW) + "x", "0x6afd1c40", "nan", "inf", "1e400", "9" * 40):
        yield case(f"the time {at!r}", at=at)

    def stricter(name, why, **given):
        return case(name, ours=False, why=why, **given)

    yield stricter("a time with a fraction", "only whole seconds are a timestamp", at=f"{NOW}.5")
    yield stricter("a time with an exponent", "only whole seconds are a timestamp", at="1.795e9")
    yield stricter("a time with a zero before it", "what is signed is the header as it came", at=f"0{NOW}")
    dotted = "msg_1.1795000000"
    yield stricter("an id with a point", "it could be read as another id, time and body",
                   id=dotted, signature=sign(TICKET, id=dotted))
    yield stricter("an id of 256", "a key has at most 255 characters",
                   id="i" * 256, signature=sign(TICKET, id="i" * 256))
    yield stricter("an id with a blank", "a key has visible characters", id="a b", signature=sign(TICKET, id="a b"))
    for name, signature in {
        "behind what is none": f"nonsense {good}", "behind an empty one": f" {good}", "behind a short one": f"v1,AA {good}",
    }.items():
        yield case(f"a signature {name}", signature=signature, ours=True, why="what is no signature is passed over")


def main():
    recorded = [{**case, "oracle": says_oracle(case)} for case in cases()]
    for case in recorded:
        assert case.get("ours") != case["oracle"], case
    text = "[\n" + ",\n".join(json.dumps(case, ensure_ascii=False) for case in recorded) + "\n]\n"
    if sys.argv[1:] == ["--write"]:
        RECORDED.write_text(text, encoding="utf-8")
    elif RECORDED.read_text(encoding="utf-8") != text:
        sys.exit(f"{RECORDED} is not what the library says now: see what changed, and run it with --write")
    accepted = sum(case["oracle"] for case in recorded)
    print(f"{len(recorded)} cases, of which the library accepts {accepted}")


main()
