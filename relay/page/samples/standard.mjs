import { createHmac, timingSafeEqual } from 'node:crypto';

// body is the body as it came, before it is parsed. secret is what is shown above.
function verify(secret, headers, body) {
  const [id, time] = [headers['webhook-id'], headers['webhook-timestamp']];
  if (!(Math.abs(Date.now() / 1000 - time) <= 300)) return false;
  const key = Buffer.from(secret.replace(/^whsec_/, ''), 'base64');
  const sum = createHmac('sha256', key).update(id + '.' + time + '.').update(body).digest();
  return (headers['webhook-signature'] ?? '').split(' ').some((one) => {
    const got = Buffer.from(one.replace(/^v1,/, ''), 'base64');
    return got.length === sum.length && timingSafeEqual(got, sum);
  });
}
