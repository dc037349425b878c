import base64, hashlib, hmac, re, time

INPUT = re.compile(r'(?:^|,\s*)(sig\d)=(\("@method" "@target-uri" "content-digest" "content-type" "webhook-id"\)'
                   r';created=([0-9]{1,12});keyid="[^"]*";alg="hmac-sha256")')

# body is the body as it came, in bytes, before it is parsed. url is the URL of this endpoint, secret is what is shown above.
def verify(secret, url, headers, body):
    digest = "sha-256=:" + base64.b64encode(hashlib.sha256(body).digest()).decode() + ":"
    if headers.get("Content-Digest") != digest:
        return False
    key = base64.b64decode(secret.removeprefix("whsec_"))
    for label, params, created in INPUT.findall(headers.get("Signature-Input", "")):
        signed = "\n".join([
            '"@method": POST', f'"@target-uri": {url}', f'"content-digest": {digest}',
            f'"content-type": {headers.get("Content-Type")}', f'"webhook-id": {headers.get("webhook-id")}', f'"@signature-params": {params}',
        ])
        want = base64.b64encode(hmac.new(key, signed.encode(), hashlib.sha256).digest())
        got = re.search(r"(?:^|,\s*)" + label + "=:([^:]*):", headers.get("Signature", ""))
        if got and abs(time.time() - int(created)) <= 300 and hmac.compare_digest(got[1].encode(), want):
            return True
    return False
