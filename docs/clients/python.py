"""usage: python3 python.py URL SALE, as in python3 python.py http://127.0.0.1:8080/ticket sale-4711.txt

Sends a ticket until it is accepted (exit code 0) or rejected for good (1). TICKETD_TOKEN is a source's token, if any.
"""

import http.client, os, pathlib, random, re, sys, time, urllib.error, urllib.request, uuid

url, sale, key, pause = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[2] + ".key"), 0.5
# Made once, and on disk before the first attempt: whatever is sent again, also by a later run, is the same ticket.
if not key.exists():
    with open(f"{key}.new", "w") as new:
        new.write(str(uuid.uuid4()))
        new.flush()
        os.fsync(new.fileno())
    os.replace(f"{key}.new", key)
headers = {"Content-Type": "text/plain", "Idempotency-Key": key.read_text()}
headers["Authorization"] = "Bearer " + os.environ.get("TICKETD_TOKEN", "")
request = urllib.request.Request(url, sale.read_bytes(), headers)
while True:
    try:
        try:
            answer = urllib.request.urlopen(request, timeout=15)
        except urllib.error.HTTPError as error:
            answer = error
        status, text, after = answer.status, answer.read().decode(), answer.headers.get("Retry-After", "")
    except (OSError, http.client.HTTPException):
        status, text, after = 0, "", ""  # It may have arrived all the same.
    if status == 202:
        sys.exit(print(text))
    if 0 < status < 500 and status not in (408, 429):
        sys.exit(f"rejected: {text}")
    # Not all senders at once.
    time.sleep((int(after) if re.fullmatch("[1-9][0-9]{0,2}", after) else pause) * random.uniform(1, 2))
    pause = min(pause * 2, 60)
