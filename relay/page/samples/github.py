import hashlib, hmac

# body is the body as it came, in bytes, before it is parsed. secret is what is shown above.
def verify(secret, headers, body):
    want = "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(headers.get("X-Hub-Signature-256", "").encode(), want.encode())
