import { createServer } from 'node:http';
import { until } from './wait.mjs';

// Receiver plays the receivers of webhooks. It answers 200 "ok" unless the path has an answer of its own.
export class Receiver {
  requests = []; // { path, headers, body }
  #answers = new Map();
  #server;

  static async start() {
    const r = new Receiver();
    r.#server = createServer((req, res) => r.#serve(req, res));
    await new Promise((resolve) => r.#server.listen(0, '127.0.0.1', resolve));
    r.address = `127.0.0.1:${r.#server.address().port}`;
    r.url = `http://${r.address}`;
    return r;
  }

  // answer sets what a path answers: { status, headers, body }, or a function of the request that returns it.
  // Headers are a flat array of names and values, so that they can be as odd as HTTP allows.
  answer(path, what) {
    this.#answers.set(path, typeof what === 'function' ? what : () => what);
  }

  at(path) {
    return this.requests.filter((r) => r.path === path);
  }

  arrived(path, count) {
    return until(`${count} requests at ${path}`, () => this.at(path).length >= count);
  }

  async #serve(req, res) {
    const chunks = [];
    for await (const chunk of req) chunks.push(chunk);
    const request = { path: req.url, headers: req.headers, body: Buffer.concat(chunks).toString() };
    this.requests.push(request);
    const a = (await this.#answers.get(req.url)?.(request)) ?? {};
    res.writeHead(a.status ?? 200, a.headers ?? ['Content-Type', 'text/plain']);
    res.end(a.body ?? 'ok');
  }

  stop() {
    this.#server.closeAllConnections();
    return new Promise((resolve) => this.#server.close(resolve));
  }
}
