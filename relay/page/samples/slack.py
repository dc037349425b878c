import hashlib, hmac, time

# body is the body as it came, in bytes, before it is parsed. secret is what is shown above.
def verify(secret, headers, body):
    at = headers["X-Slack-Request-Timestamp"]
    if not at.isdigit() or abs(time.time() - int(at)) > 300:
        return False
    want = "v0=" + hmac.new(secret.encode(), f"v0:{at}:".encode() + body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(headers["X-Slack-Signature"], want)
