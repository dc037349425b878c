import { existsSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';
import { adminToken } from './relay.mjs';
import { deadline, until } from './wait.mjs';

export const artifacts = process.env.RELAY_ARTIFACTS ?? fileURLToPath(new URL('../../../.artifacts/', import.meta.url));

const binaries = ['/usr/bin/chromium', '/usr/bin/chromium-headless-shell', '/usr/bin/google-chrome'];

// One browser for each file of tests. Its contexts share nothing.
let running;

function browser() {
  const executablePath = process.env.RELAY_CHROMIUM ?? binaries.find((b) => existsSync(b));
  if (!executablePath) throw new Error(`no browser: "make setup" installs chromium; looked for ${binaries.join(', ')}`);
  running ??= chromium.launch({
    executablePath,
    args: [
      '--no-sandbox', // the tests run as root in a container, and visit nothing but Relay
      '--disable-dev-shm-usage',
      '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1',
    ],
  });
  return running;
}

after(async () => (await running)?.close());

// Visitor is a person with a browser of its own: a page that records all that must not happen.
export class Visitor {
  problems = [];
  #expected = [];
  #tolerated = [];
  #looking = []; // what is being looked at
  #underWay = new Set(); // navigations without an answer yet

  // options: js (true), theme ("light"), width (1280), languages ("en"), zone ("UTC")
  static async arrive(relay, options = {}) {
    const { js = true, theme = 'light', width = 1280, languages = 'en', zone = 'UTC' } = options;
    const v = new Visitor();
    v.relay = relay;
    v.js = js;
    v.context = await (await browser()).newContext({
      baseURL: relay.url,
      javaScriptEnabled: js,
      colorScheme: theme,
      viewport: { width, height: 900 },
      timezoneId: zone,
      reducedMotion: 'reduce',
      extraHTTPHeaders: { 'Accept-Language': languages },
    });
    v.context.setDefaultTimeout(deadline);
    await v.context.exposeBinding('violated', (_, text) => v.problems.push(text));
    await v.context.addInitScript(() => {
      addEventListener('securitypolicyviolation', (e) => window.violated(`${e.effectiveDirective} forbids ${e.blockedURI} ${e.sample} in ${e.documentURI}`));
    });
    v.context.on('page', (page) => v.#watch(page));
    v.context.on('weberror', (e) => v.problems.push(`exception: ${e.error().stack}`));
    v.page = await v.context.newPage();
    return v;
  }

  // expect allows answers of a status from paths that begin so, such as a page that is not found.
  expect(status, path) {
    this.#expected.push({ status, path });
  }

  // tolerate allows messages in the console.
  tolerate(pattern) {
    this.#tolerated.push(pattern);
  }

  #watch(page) {
    page.on('console', (m) => {
      if (m.text().startsWith('Failed to load resource') || this.#tolerated.some((t) => t.test(m.text()))) return;
      if (['error', 'warning'].includes(m.type())) this.problems.push(`console: ${m.text()}`);
    });
    page.on('request', (r) => r.isNavigationRequest() && this.#underWay.add(r));
    page.on('requestfinished', (r) => this.#underWay.delete(r));
    page.on('crash', () => this.problems.push('the page crashed'));
    page.on('response', (r) => this.#look(r));
    page.on('requestfailed', (r) => {
      this.#underWay.delete(r);
      // Aborted is what a visitor leaves before it is there.
      if (r.failure()?.errorText !== 'net::ERR_ABORTED') this.problems.push(`${r.method()} ${r.url()} failed: ${r.failure()?.errorText}`);
    });
    page.on('domcontentloaded', () => this.#looking.push(this.#inline(page)));
  }

  #look(response) {
    const request = response.request();
    const url = new URL(response.url());
    const mine = response.url().startsWith(this.relay.url);
    if (!['127.0.0.1', 'localhost', ''].includes(url.hostname)) this.problems.push(`a request leaves the machine: ${url}`);
    const expected = this.#expected.some((e) => e.status === response.status() && url.pathname.startsWith(e.path));
    if (mine && response.status() >= 400 && !expected) this.problems.push(`${request.method()} ${url} answers ${response.status()}`);
    if (mine && response.headers()['content-type']?.startsWith('text/html')) {
      for (const flaw of flawsOfHeaders(response.headers())) this.problems.push(`${url}: ${flaw}`);
    }
  }

  // inline looks for what the policy forbids also where it would not be reported, as without JavaScript.
  async #inline(page) {
    const found = await page
      .evaluate(() =>
        [...document.querySelectorAll('*')]
          .filter((e) => e.localName === 'style' || (e.localName === 'script' && !e.src) || e.getAttributeNames().some((a) => a === 'style' || a.startsWith('on')) || /^\s*javascript:/i.test(e.getAttribute('href') ?? ''))
          .map((e) => e.outerHTML.slice(0, 200)),
      )
      .catch(() => []); // the page was left meanwhile
    for (const html of found) this.problems.push(`inline in ${page.url()}: ${html}`);
  }

  // open goes to a path and waits for the screen of that name.
  async open(path, screen) {
    await this.page.goto(path);
    if (screen) await this.at(screen);
    return this.page;
  }

  // at waits until a screen is shown, and its module runs: before that, nobody hears keys.
  async at(screen) {
    await this.page.locator(`main[data-screen="${screen}"]`).waitFor();
    await this.page.waitForLoadState();
  }

  // left waits until the address is another one than path, and no navigation is under way. The second click of two
  // aborts the navigation of the first, which waitForURL takes for a failure.
  left(path) {
    return until(`another address than ${path}`, () => new URL(this.page.url()).pathname !== path && this.#underWay.size === 0);
  }

  async login(token = adminToken) {
    await this.open('/login', 'login');
    await this.page.getByLabel('Token').fill(token);
    await this.page.getByRole('button', { name: 'Log in' }).click();
    await this.at('overview');
  }

  // enter opens a link that logs in.
  async enter(token) {
    await this.page.goto(`/enter/${token}`);
    await this.at('overview');
  }

  // settled waits until all that was seen is looked at.
  async settled() {
    await Promise.all(this.#looking);
  }

  async leave() {
    await this.context.close();
  }
}

// flawsOfHeaders says what is missing in the headers of a page.
export function flawsOfHeaders(headers) {
  const flaws = [];
  const policy = Object.fromEntries(
    (headers['content-security-policy'] ?? '').split(';').map((d) => {
      const [name, ...values] = d.trim().split(/\s+/);
      return [name, values.join(' ')];
    }),
  );
  const want = { 'default-src': "'none'", 'script-src': "'self'", 'style-src': "'self'", 'connect-src': "'self'", 'img-src': "'self'", 'form-action': "'self'", 'frame-ancestors': "'none'" };
  for (const [name, value] of Object.entries(want)) {
    if (policy[name] !== value) flaws.push(`Content-Security-Policy has ${name} ${policy[name]}, want ${value}`);
  }
  if (headers['x-content-type-options'] !== 'nosniff') flaws.push('no X-Content-Type-Options: nosniff');
  if (!/no-referrer|same-origin/.test(headers['referrer-policy'] ?? '')) flaws.push('no Referrer-Policy that keeps addresses');
  if (!/no-store/.test(headers['cache-control'] ?? '')) flaws.push('no Cache-Control: no-store');
  return flaws;
}

// story is a test with visitors, which ends with none of them having seen what must not happen. tell gets
// arrive(relay, options), which returns a Visitor.
export function story(name, tell) {
  test(name, async () => {
    const visitors = [];
    const arrive = async (relay, options) => {
      visitors.push(await Visitor.arrive(relay, options));
      return visitors.at(-1);
    };
    try {
      await tell(arrive);
      for (const v of visitors) await v.settled();
      const problems = visitors.flatMap((v) => v.problems);
      if (problems.length > 0) throw new Error(problems.join('\n'));
    } catch (error) {
      await explain(name, visitors);
      throw error;
    } finally {
      for (const v of visitors) await v.leave();
    }
  });
}

// explain leaves what a failed story has seen.
async function explain(name, visitors) {
  const folder = join(artifacts, 'failed', name.replaceAll(/[^A-Za-z0-9]+/g, '-'));
  await mkdir(folder, { recursive: true });
  for (const [i, v] of visitors.entries()) {
    for (const problem of new Set(v.problems)) console.error(problem);
    console.error(`visitor ${i} is at ${v.page.url()}; ${folder} has what it sees`);
    await v.page.screenshot({ path: join(folder, `${i}.png`), fullPage: true }).catch(() => {});
    await writeFile(join(folder, `${i}.html`), await v.page.content().catch(String));
  }
  for (const relay of new Set(visitors.map((v) => v.relay))) console.error(`log of Relay at ${relay.url}:\n${relay.log?.slice(-60).join('\n')}`);
}
