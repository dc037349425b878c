import hashlib, hmac, re, time

# body is the body as it came, in bytes, before it is parsed. secret is what is shown above.
def verify(secret, headers, body):
    parts = [part.partition("=") for part in headers.get("Stripe-Signature", "").split(",")]
    at = next((value for name, _, value in parts if name == "t"), "")
    if not re.fullmatch("[0-9]{1,12}", at) or abs(time.time() - int(at)) > 300:
        return False
    want = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return any(hmac.compare_digest(value.encode(), want.encode()) for name, _, value in parts if name == "v1")
