import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { after, before, test } from 'node:test';
import { Visitor } from './browser.mjs';
import { until } from './wait.mjs';

const good = {
  'Content-Type': 'text/html',
  'Content-Security-Policy': "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'",
  'X-Content-Type-Options': 'nosniff',
  'Referrer-Policy': 'no-referrer',
  'Cache-Control': 'no-store',
};

// What a page must not do, with a word of the problem that a visitor records. The first one does nothing.
const pages = {
  '/good': { body: '<link rel="icon" href="/icon.svg"><p class="a">fine</p>' },
  '/style': { body: '<p style="color:red">x</p>', problem: /inline/ },
  '/sheet': { body: '<style>p{color:red}</style>', problem: /inline/ },
  '/script': { body: '<script>1</script>', problem: /script-src/, scripts: true },
  '/handler': { body: '<p onclick="1">x</p>', problem: /inline/ },
  '/link': { body: '<a href="javascript:1">x</a>', problem: /inline/ },
  '/image': { body: '<img src="http://192.0.2.1/x.png">', problem: /img-src|Content Security Policy|leaves/ },
  '/missing': { body: '<img src="/nothing">', problem: /404/ },
  '/throws': { body: '<script src="/throws.js"></script>', problem: /exception/, scripts: true },
  '/rejects': { body: '<script src="/rejects.js"></script>', problem: /exception/, scripts: true },
  '/logs': { body: '<script src="/logs.js"></script>', problem: /console/, scripts: true },
  '/bare': { body: '<p>x</p>', headers: { 'Content-Type': 'text/html' }, problem: /Content-Security-Policy/ },
  '/lax': { body: '<p>x</p>', headers: { ...good, 'Content-Security-Policy': good['Content-Security-Policy'].replace("script-src 'self'", "script-src 'self' 'unsafe-inline'") }, problem: /script-src/ },
};
const scripts = { '/throws.js': 'throw new Error("thrown")', '/rejects.js': 'Promise.reject(new Error("rejected"))', '/logs.js': 'console.error("logged")' };

const server = createServer((req, res) => {
  if (scripts[req.url]) return res.writeHead(200, { 'Content-Type': 'text/javascript' }).end(scripts[req.url]);
  if (req.url === '/icon.svg') return res.writeHead(200, { 'Content-Type': 'image/svg+xml' }).end('<svg xmlns="http://www.w3.org/2000/svg"/>');
  const page = pages[req.url];
  if (!page) return res.writeHead(404).end();
  res.writeHead(200, page.headers ?? good).end(`<!doctype html><title>x</title><link rel="icon" href="/icon.svg">${page.body}`);
});
before(() => new Promise((resolve) => server.listen(0, '127.0.0.1', resolve)));
after(() => server.close());

for (const js of [true, false]) {
  for (const [path, { problem, scripts }] of Object.entries(pages)) {
    if (scripts && !js) continue;
    test(`a visitor ${js ? 'with' : 'without'} JavaScript at ${path}`, async () => {
      const v = await Visitor.arrive({ url: `http://127.0.0.1:${server.address().port}` }, { js });
      await v.page.goto(path, { waitUntil: 'load' });
      await v.settled();
      if (problem) await until(`a problem like ${problem}`, () => problem.test(v.problems.join('\n'))); // some are told after the page is loaded
      await v.leave();
      if (!problem) assert.deepEqual(v.problems, []);
    });
  }
}
