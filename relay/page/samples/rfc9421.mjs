import { createHash, createHmac, timingSafeEqual } from 'node:crypto';

// body is the body as it came, before it is parsed. url is the URL of this endpoint, secret is what is shown above.
function verify(secret, url, headers, body) {
  const digest = 'sha-256=:' + createHash('sha256').update(body).digest('base64') + ':';
  if (headers['content-digest'] !== digest) return false;
  const key = Buffer.from(secret.replace(/^whsec_/, ''), 'base64');
  const input = /(?:^|,\s*)(sig\d)=(\("@method" "@target-uri" "content-digest" "content-type" "webhook-id"\);created=(\d{1,12});keyid="[^"]*";alg="hmac-sha256")/g;
  return [...(headers['signature-input'] ?? '').matchAll(input)].some(([, label, params, created]) => {
    if (Math.abs(Date.now() / 1000 - created) > 300) return false;
    const sum = createHmac('sha256', key).update([
      '"@method": POST', '"@target-uri": ' + url, '"content-digest": ' + digest,
      '"content-type": ' + headers['content-type'], '"webhook-id": ' + headers['webhook-id'], '"@signature-params": ' + params,
    ].join('\n')).digest();
    const [, text] = (headers['signature'] ?? '').match('(?:^|,\\s*)' + label + '=:([^:]*):') ?? [];
    const got = Buffer.from(text ?? '', 'base64');
    return got.length === sum.length && timingSafeEqual(got, sum);
  });
}
