// A receiver of Standard Webhooks in Node.js, without packages.
//
//   export WEBHOOK_SECRET=whsec_…             # several during a rotation, with spaces between
//   node receiver.mjs 127.0.0.1:9000
import { createHmac, timingSafeEqual } from "node:crypto";
import { createServer } from "node:http";

const TOLERANCE = 5 * 60; // seconds between the sender's clock and ours
const MAX_BODY = 1 << 20;

const secrets = (process.env.WEBHOOK_SECRET ?? "").split(" ").filter(Boolean);
const keys = secrets.map((secret) => Buffer.from(secret.replace(/^whsec_/, ""), "base64"));
const [host, port] = (process.argv[2] ?? "").split(":");
if (keys.length === 0 || keys.some((key) => key.length === 0) || !port) {
  console.error("usage: WEBHOOK_SECRET=whsec_… node receiver.mjs HOST:PORT");
  process.exit(2);
}

// verify tells what is wrong with a request, or undefined. body is a Buffer of what came, byte
// for byte: never parse it and write it again before.
function verify(headers, body) {
  const id = headers["webhook-id"];
  const timestamp = headers["webhook-timestamp"] ?? "";
  if (!id || !/^\d{1,15}$/.test(timestamp)) return "webhook-id or webhook-timestamp is missing";
  if (Math.abs(Date.now() / 1000 - Number(timestamp)) > TOLERANCE) return "the timestamp is too old or too new";
  for (const key of keys) {
    const mac = createHmac("sha256", key).update(`${id}.${timestamp}.`).update(body);
    const want = Buffer.from("v1," + mac.digest("base64"));
    // A sender that changes its secret signs with both.
    for (const signature of (headers["webhook-signature"] ?? "").split(" ")) {
      const got = Buffer.from(signature);
      if (got.length === want.length && timingSafeEqual(got, want)) return; // takes as long whatever differs
    }
  }
  return "no signature is right";
}

// The ids of what was handled. A real receiver keeps them beside its data, in the same
// transaction: insert into handled (id) … on conflict do nothing.
const handled = new Set();

const server = createServer(async (request, response) => {
  const parts = [];
  let size = 0;
  for await (const part of request) {
    if ((size += part.length) > MAX_BODY) return response.writeHead(413).end();
    parts.push(part);
  }
  const body = Buffer.concat(parts);
  const wrong = verify(request.headers, body);
  if (wrong) return response.writeHead(401).end(wrong + "\n");
  const id = request.headers["webhook-id"];
  if (!handled.has(id)) { // at least once means: sometimes twice
    handled.add(id);
    console.log(`handled ${id} ${body}`); // the work; what takes long belongs in a queue
  }
  response.writeHead(204).end();
});
server.listen(Number(port), host, () => console.log(`listening on ${host}:${server.address().port}`));
