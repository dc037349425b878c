# A receiver of Standard Webhooks in Python, with the standard library only.
#
#   export WEBHOOK_SECRET=whsec_…             # several during a rotation, with spaces between
#   python3 receiver.py 127.0.0.1:9000
import base64
import hashlib
import hmac
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock

TOLERANCE = 5 * 60  # seconds between the sender's clock and ours
MAX_BODY = 1 << 20


def verify(keys, headers, body):
    """Tells what is wrong with a request, or None. body is what came, byte for byte: never
    parse it and write it again before."""
    event_id, timestamp = headers.get("webhook-id"), headers.get("webhook-timestamp", "")
    if not event_id or not (timestamp.isascii() and timestamp.isdigit()):
        return "webhook-id or webhook-timestamp is missing"
    if abs(time.time() - int(timestamp)) > TOLERANCE:
        return "the timestamp is too old or too new"
    signed = f"{event_id}.{timestamp}.".encode() + body
    for key in keys:
        digest = hmac.new(key, signed, hashlib.sha256).digest()
        want = b"v1," + base64.b64encode(digest)
        # A sender that changes its secret signs with both.
        for signature in headers.get("webhook-signature", "").split():
            if hmac.compare_digest(signature.encode(), want):  # takes as long whatever differs
                return None
    return "no signature is right"


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 10
    keys = [base64.b64decode(s.removeprefix("whsec_"), validate=True) for s in os.environ.get("WEBHOOK_SECRET", "").split()]
    # The ids of what was handled. A real receiver keeps them beside its data, in the same
    # transaction: insert into handled (id) … on conflict do nothing.
    handled = set()
    lock = Lock()

    def do_POST(self):
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()) or int(length) > MAX_BODY:
            self.close_connection = True
            return self.answer(413)
        body = self.rfile.read(int(length))
        wrong = verify(self.keys, self.headers, body)
        if wrong:
            return self.answer(401, wrong)
        event_id = self.headers["webhook-id"]
        with self.lock:
            again = event_id in self.handled
            self.handled.add(event_id)
        if not again:  # at least once means: sometimes twice
            print("handled", event_id, body.decode(), flush=True)  # the work; what takes long belongs in a queue
        self.answer(204)

    def answer(self, status, text=""):
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *args):
        pass


if len(sys.argv) != 2 or not Receiver.keys or b"" in Receiver.keys:
    sys.exit("usage: WEBHOOK_SECRET=whsec_… python3 receiver.py HOST:PORT")
host, _, port = sys.argv[1].rpartition(":")
server = ThreadingHTTPServer((host, int(port)), Receiver)
print(f"listening on {host}:{server.server_port}", flush=True)
server.serve_forever()
