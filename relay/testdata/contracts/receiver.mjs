// A receiver of contracts A and B as their users write it: it parses the body and signs what
// JSON.stringify makes of it. For each request it prints a line: null, or what is wrong.
//
//   CERT=cert.pem KEY=key.pem SECRET=… EVENTS=events.json node receiver.mjs
import { createHmac, timingSafeEqual } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:https";

const { CERT, KEY, SECRET, EVENTS } = process.env;
const sent = JSON.parse(readFileSync(EVENTS, "utf8")); // the data of each event, as text

const hmac = (text) => "sha256=" + createHmac("sha256", SECRET).update(text).digest("hex");
const equal = (a, b) => a.length === b.length && timingSafeEqual(Buffer.from(a), Buffer.from(b));

function problem(path, headers, raw) {
  const parsed = JSON.parse(raw);
  const text = JSON.stringify(parsed);
  if (text !== raw.toString("utf8")) return "the body is not as JSON.stringify writes it";
  const a = path === "/a";
  const keys = a ? "id,type,timestamp,data" : "event,timestamp,data";
  if (Object.keys(parsed).join() !== keys) return "keys of the body: " + Object.keys(parsed).join();
  const signed = a ? headers["x-saas-timestamp"] + "." + text : text;
  const signature = headers[a ? "x-saas-signature" : "x-webhook-signature"] ?? "";
  if (!equal(signature, hmac(signed))) return "the signature is wrong";
  const want = JSON.stringify(JSON.parse(sent[headers["webhook-id"]]));
  if (JSON.stringify(parsed.data) !== want) return "the data differs";
  return null;
}

const server = createServer({ cert: readFileSync(CERT), key: readFileSync(KEY) }, async (request, response) => {
  const parts = [];
  for await (const part of request) parts.push(part);
  let wrong;
  try {
    wrong = problem(request.url, request.headers, Buffer.concat(parts));
  } catch (e) {
    wrong = String(e);
  }
  response.writeHead(wrong ? 400 : 204).end();
  console.log(JSON.stringify({ path: request.url, event: request.headers["webhook-id"], wrong }));
});
server.listen(0, "127.0.0.1", () => console.log(JSON.stringify({ port: server.address().port })));
