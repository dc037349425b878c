import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { deadline, until } from './wait.mjs';

export const binary = process.env.RELAY_BINARY ?? fileURLToPath(new URL('../../../bin/relay', import.meta.url));

// Relay is a process of "relay serve" with a folder of its own.
export class Relay {
  log = [];
  #process;
  #ended;

  // start runs Relay on a file, in which ${dir} is its folder, and waits until it is ready.
  static async start(file) {
    const r = new Relay();
    r.dir = await mkdtemp(join(tmpdir(), 'relay-browser-'));
    await r.write(file);
    r.#process = spawn(binary, ['serve', '--config', join(r.dir, 'relay.hcl'), '--watch=false', '--grace', '1s'], {
      env: { PATH: process.env.PATH, STATE_DIRECTORY: r.dir },
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    r.#ended = new Promise((resolve) => r.#process.once('exit', resolve));
    createInterface({ input: r.#process.stderr }).on('line', (line) => r.log.push(line));
    const ready = await until('Relay to be ready', () => {
      if (r.#process.exitCode !== null) throw new Error(`Relay ended:\n${r.log.join('\n')}`);
      return r.log.find((line) => line.includes('"message":"ready"'));
    });
    const at = (list) => `http://${list.find((a) => a.startsWith('tcp:')).slice(4)}`;
    const { ingest, admin } = JSON.parse(ready);
    r.ingest = at(ingest);
    r.url = at(admin);
    return r;
  }

  // write writes the file, to be read by reload.
  write(file) {
    return writeFile(join(this.dir, 'relay.hcl'), file.replaceAll('${dir}', this.dir), { mode: 0o600 });
  }

  // send posts one event, or several in one request, and returns the answer.
  async send(events) {
    const answer = await fetch(`${this.ingest}/v1/events`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: typeof events === 'string' ? events : JSON.stringify(events),
      signal: AbortSignal.timeout(deadline),
    });
    if (answer.status !== 202) throw new Error(`ingest answers ${answer.status}: ${await answer.text()}`);
    return answer.json();
  }

  // api asks the admin API and returns the answer's JSON.
  async api(method, path, body, token = adminToken) {
    const answer = await fetch(this.url + path, {
      method,
      headers: { Authorization: `Bearer ${token}`, ...(body && { 'Content-Type': 'application/json' }) },
      body: body && JSON.stringify(body),
      signal: AbortSignal.timeout(deadline),
    });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${method} ${path} answers ${answer.status}: ${text}`);
    return text && JSON.parse(text);
  }

  // deliveries lists those of a query string, the newest first.
  async deliveries(query) {
    return (await this.api('GET', `/v1/deliveries?${query}`)).items;
  }

  // reload writes the file and has it read.
  async reload(file) {
    await this.write(file);
    return this.api('POST', '/v1/reload');
  }

  async stop() {
    this.#process.kill('SIGTERM');
    await this.#ended;
    await rm(this.dir, { recursive: true });
  }
}

export const adminToken = 'token-of-the-operator';
